import { connect, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { Certificate } from "./certificate.test-kit.ts";

export interface ProxyOptions {
  /** Asked for with 407; the user is `proxy@user`. */
  readonly password?: string;
  /** Spoken to over TLS, as `localhost`. */
  readonly certificate?: Certificate;
}

/** A proxy that makes the connections it is asked for (CONNECT, RFC 9110 section 9.3.6), to where names lead by its own list. */
export interface TestProxy {
  /** `http://127.0.0.1:PORT`, or `https://localhost:PORT` */
  readonly url: URL;
  /** The first line and the Proxy-Authorization of each request. */
  readonly requests: readonly { readonly line: string; readonly authorization: string | undefined }[];
  /** Every byte that it was sent in the clear. */
  received(): string;
  stop(): Promise<void>;
}

/**
 * @param ports of loopback, by `HOST:PORT` as the proxy is asked for it; what is not there is refused with 403
 */
export async function startProxy(
  ports: ReadonlyMap<string, number>,
  { password, certificate }: ProxyOptions = {},
): Promise<TestProxy> {
  const requests: { line: string; authorization: string | undefined }[] = [];
  const clear: string[] = [];
  const sockets = new Set<Socket>();
  const wanted = password === undefined ? undefined : `Basic ${btoa(`proxy@user:${password}`)}`;
  const serve = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    socket.once("data", (data) => {
      const [line = "", ...fields] = data.toString("latin1").split("\r\n");
      clear.push(data.toString("latin1"));
      const authorization = /^proxy-authorization: (.*)$/im.exec(fields.join("\n"))?.[1];
      requests.push({ line, authorization });
      if (wanted !== undefined && authorization !== wanted) return refuse(socket, 407);
      const target = /^CONNECT (\S+) /.exec(line)?.[1] ?? /^\S+ http:\/\/([^/]+)\//.exec(line)?.[1];
      const port = ports.get(target ?? "");
      if (port === undefined) return refuse(socket, 403);
      const upstream = connect(port, "127.0.0.1", () => {
        if (line.startsWith("CONNECT")) socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
        else upstream.write(data);
        socket.pipe(upstream);
        upstream.pipe(socket);
      });
      sockets.add(upstream);
      upstream.on("error", () => socket.destroy());
    });
  };
  const server: Server =
    certificate === undefined
      ? createServer(serve)
      : createTlsServer({ key: certificate.key, cert: certificate.certificate }, serve);
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    url: new URL(certificate === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`),
    requests,
    received: () => clear.join(""),
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((done) => server.close(() => done()));
    },
  };
}

function refuse(socket: Socket, status: number): void {
  socket.end(
    `HTTP/1.1 ${status} Refused by-the-proxy\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n`,
  );
}
