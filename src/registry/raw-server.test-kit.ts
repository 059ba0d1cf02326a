import { createServer, type Server, type Socket } from "node:net";

export interface RawRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
  readonly body: string;
}

/** An answer as it goes over the wire. Content-Length is the body's unless the headers say another. */
export interface RawReply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  /** After so many bytes of the body the connection breaks. */
  readonly cutAfterBytes?: number;
  /** After so many bytes of the body nothing more comes; 0 with no head at all when `head` is false. */
  readonly hangAfterBytes?: number;
  /** False: not even the head is sent before the break or the silence. */
  readonly head?: boolean;
}

/** An HTTP/1.1 server that misbehaves exactly as it is told to. */
export interface RawServer {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly requests: readonly RawRequest[];
  /** Requests as `METHOD /path`. */
  lines(): readonly string[];
  stop(): Promise<void>;
}

export async function startRawServer(
  handle: (request: RawRequest) => RawReply | Promise<RawReply>,
): Promise<RawServer> {
  const requests: RawRequest[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    serve(socket, async (request) => {
      requests.push(request);
      return handle(request);
    });
  });
  const host = `127.0.0.1:${await listen(server)}`;
  const stop = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  const lines = (): readonly string[] => requests.map(({ method, url }) => `${method} ${url.pathname}`);
  return { host, requests, lines, stop };
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
}

function serve(socket: Socket, handle: (request: RawRequest) => Promise<RawReply>): void {
  let pending = Buffer.alloc(0);
  let work = Promise.resolve();
  socket.on("data", (data: Buffer) => {
    pending = Buffer.concat([pending, data]);
    for (let parsed = parseRequest(pending); parsed !== undefined; parsed = parseRequest(pending)) {
      const { request, sizeBytes } = parsed;
      pending = Buffer.from(pending.subarray(sizeBytes));
      work = work.then(async () => reply(socket, request, await handle(request)));
    }
  });
}

/** The first request in the bytes, when it is whole, and how long it is. */
export function parseRequest(bytes: Buffer): { request: RawRequest; sizeBytes: number } | undefined {
  const end = bytes.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const [first = "", ...fields] = bytes.subarray(0, end).toString("latin1").split("\r\n");
  const headers = new Headers(
    fields.map((field) => [field.slice(0, field.indexOf(":")), field.slice(field.indexOf(":") + 1).trim()]),
  );
  const sizeBytes = end + 4 + Number(headers.get("content-length") ?? 0);
  if (bytes.length < sizeBytes) return undefined;
  const [method = "", path = ""] = first.split(" ");
  const url = new URL(path, `http://${headers.get("host")}`);
  return {
    request: { method, url, headers, body: bytes.subarray(end + 4, sizeBytes).toString() },
    sizeBytes,
  };
}

function reply(socket: Socket, request: RawRequest, { status, headers, body = "", ...how }: RawReply): void {
  const bytes = Buffer.from(body);
  const fields = { "content-length": String(bytes.length), ...headers };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  if (how.head !== false) socket.write(`HTTP/1.1 ${status} Status\r\n${lines.join("")}\r\n`);
  if (request.method === "HEAD" && how.head !== false) return;
  const sizeBytes = how.cutAfterBytes ?? how.hangAfterBytes ?? bytes.length;
  if (sizeBytes > 0) socket.write(bytes.subarray(0, sizeBytes));
  if (how.cutAfterBytes !== undefined) socket.end(() => socket.destroy());
}

/** What a sound store answers to a request, ranged or not. */
export function rangeReply({ headers }: RawRequest, content: Uint8Array): RawReply {
  const range = /^bytes=(\d+)-(\d+)$/.exec(headers.get("range") ?? "");
  if (range === null) return { status: 200, body: content };
  const [start, end] = [Number(range[1]), Number(range[2])];
  const body = content.subarray(start, end + 1);
  return { status: 206, headers: { "content-range": `bytes ${start}-${end}/${content.length}` }, body };
}
