import { connect, createServer } from "node:net";
import type { Socket } from "bun";
import type { Certificate } from "./certificate.test-kit.ts";
import { parseRequest, type RawRequest } from "./raw-server.test-kit.ts";

/** A request as it came to some address of the world. */
export interface Seen extends RawRequest {
  readonly tls: boolean;
  /** The name that it was asked under: `https://registry.example`. */
  readonly origin: string;
}

export interface HostileReply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** The body, or the head when `inHead`, never ends. */
  readonly endless?: boolean;
  readonly inHead?: boolean;
}

interface Connection {
  readonly tls: boolean;
  pending: Buffer;
  endless: string | undefined;
}

const tlsPorts: readonly number[] = [443, 8443];
const plainPorts: readonly number[] = [80, 5000, 8080];
const proxyPort = 3128;
/** Where the proxy finds whatever it is asked for. */
const behindProxy = "8.8.8.8";

/**
 * Everybody on the internet, and in every private network: in a network namespace in which all addresses are this
 * machine's own, it takes connections to any of them, and writes down to which and every byte that comes. Its certificate is
 * good for the names given. There is a proxy, too, which connects to whatever it is asked for.
 */
export class HostileInternet {
  /** Addresses that were connected to. */
  readonly connects: string[] = [];
  readonly requests: Seen[] = [];
  /** Connections in all, over everything that began. */
  taken = 0;
  #text = "";
  #onAsk: (target: string) => void = () => undefined;
  #answer: (request: Seen) => HostileReply = () => ({ status: 404 });

  constructor(certificate: Certificate) {
    const tls = { key: certificate.key, cert: certificate.certificate };
    for (const port of tlsPorts) this.#listen(port, tls);
    for (const port of plainPorts) this.#listen(port, undefined);
    this.#serveProxy();
  }

  /** The proxy's URL. */
  readonly proxy = new URL(`http://1.1.1.1:${proxyPort}`);

  /**
   * From now on these are the answers; what was seen is forgotten.
   * @param onAsk hears each `HOST:PORT` that the proxy is asked for, at that moment
   */
  begin(answer: (request: Seen) => HostileReply, onAsk: (target: string) => void): void {
    this.#onAsk = onAsk;
    this.connects.length = 0;
    this.requests.length = 0;
    this.#text = "";
    this.#answer = answer;
  }

  /** Every byte that was received. */
  received(): string {
    return this.#text;
  }

  #listen(port: number, tls: { key: string; cert: string } | undefined): void {
    Bun.listen<Connection>({
      hostname: "::",
      port,
      ...(tls === undefined ? {} : { tls }),
      socket: {
        open: (socket) => {
          this.taken += 1;
          this.connects.push(socket.localAddress.replace(/^::ffff:(?=\d+\.)/, ""));
          socket.data = { tls: tls !== undefined, pending: Buffer.alloc(0), endless: undefined };
        },
        data: (socket, bytes) => this.#take(socket, bytes),
        drain: (socket) => pour(socket),
        error: () => undefined,
      },
    });
  }

  #serveProxy(): void {
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", (data: Buffer) => {
        this.#text += data.toString("latin1");
        const target = /^CONNECT (\S+) /.exec(data.toString("latin1"))?.[1] ?? "";
        this.#onAsk(target);
        const upstream = connect(Number(target.split(":").at(-1)), behindProxy, () => {
          socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
          socket.pipe(upstream).pipe(socket);
        });
        upstream.on("error", () => socket.destroy());
      });
    });
    server.listen(proxyPort, "::");
  }

  #take(socket: Socket<Connection>, bytes: Buffer): void {
    const connection = socket.data;
    this.#text += bytes.toString("latin1");
    connection.pending = Buffer.concat([connection.pending, bytes]);
    for (let parsed = parseRequest(connection.pending); parsed !== undefined; ) {
      connection.pending = Buffer.from(connection.pending.subarray(parsed.sizeBytes));
      const { request } = parsed;
      const origin = `${connection.tls ? "https" : "http"}://${request.headers.get("host")}`;
      const seen = { ...request, tls: connection.tls, origin };
      this.requests.push(seen);
      answer(socket, seen, this.#answer(seen));
      parsed = parseRequest(connection.pending);
    }
  }
}

function answer(socket: Socket<Connection>, request: Seen, reply: HostileReply): void {
  const body = Buffer.from(reply.body ?? "");
  const length = reply.endless === true ? {} : { "content-length": String(body.length) };
  // Each way shall be gone from its beginning.
  const fields = Object.entries({ connection: "close", ...length, ...reply.headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  const head = `HTTP/1.1 ${reply.status} Status\r\n${fields.join("")}`;
  if (reply.endless === true) {
    socket.write(reply.inHead === true ? head : `${head}\r\n`);
    socket.data.endless = reply.inHead === true ? `X-More: ${"x".repeat(1000)}\r\n` : "x".repeat(64 * 1024);
    pour(socket);
    return;
  }
  socket.write(`${head}\r\n`);
  if (request.method !== "HEAD") socket.write(body);
  socket.end();
}

/** Writes for as long as it is taken. */
function pour(socket: Socket<Connection>): void {
  const { endless } = socket.data;
  while (endless !== undefined && socket.write(endless) === endless.length);
}
