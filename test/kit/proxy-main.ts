/**
 * The proxy's own process: `bun proxy-main.ts '{"upstream":"127.0.0.1:5000","delayMs":20,"bytesPerSecond":125000000}'`.
 * Knows just enough of HTTP/1.1 to see where a request begins; bodies of answers pass as they come.
 */
import { connect, createServer, type Socket } from "node:net";
import type { Fault, ProxySettings, ProxyStats } from "./fault.ts";
import { TokenBucket } from "./token-bucket.ts";

const settings = JSON.parse(process.argv[2] ?? "{}") as ProxySettings;
const [upstreamHost, upstreamPort] = settings.upstream.split(":") as [string, string];
const bucket = new TokenBucket(settings.bytesPerSecond);
let faults: { fault: Fault; pattern: RegExp; left: number }[] = [];
let requests = 0;
let bytes = 0;
let log: string[] = [];

/** One client connection with its connection to the server behind it. */
class Connection {
  readonly #client: Socket;
  readonly #server: Socket;
  #head = Buffer.alloc(0);
  #bodyLeft = 0;
  /** The fault of the request that is being answered, with what was seen of the answer. */
  #action: Fault["action"] | undefined;
  #answerHead: Buffer | undefined;
  #bodySeen = 0;

  constructor(client: Socket) {
    this.#client = client;
    this.#server = connect({ host: upstreamHost, port: Number(upstreamPort), noDelay: true });
    client.setNoDelay(true);
    client.on("data", (chunk: Buffer) => this.#fromClient(chunk));
    this.#server.on("data", (chunk: Buffer) => this.#fromServer(chunk));
    const close = (): void => {
      client.destroy();
      this.#server.destroy();
    };
    client.on("error", close).on("close", close);
    this.#server.on("error", close);
    this.#server.on("end", () => void bucket.take(0, () => client.end()));
  }

  #fromClient(chunk: Buffer): void {
    if (this.#bodyLeft > 0) {
      const body = chunk.subarray(0, this.#bodyLeft);
      this.#bodyLeft -= body.length;
      this.#later(() => this.#server.write(body));
      chunk = chunk.subarray(body.length);
      if (chunk.length === 0) return;
    }
    this.#head = Buffer.concat([this.#head, chunk]);
    const end = this.#head.indexOf("\r\n\r\n");
    if (end < 0) return;
    const head = this.#head.toString("latin1", 0, end + 4);
    const rest = this.#head.subarray(end + 4);
    this.#head = Buffer.alloc(0);
    this.#bodyLeft = Number(head.match(/\r\ncontent-length: *(\d+)/i)?.[1] ?? 0);
    this.#request(head);
    if (rest.length > 0) this.#fromClient(rest);
  }

  #request(head: string): void {
    const [method, path] = head.split(" ", 2) as [string, string];
    const range = head.match(/\r\nrange: *([^\r]*)/i)?.[1];
    requests++;
    log.push([method, path, ...(range === undefined ? [] : [range])].join(" "));
    if (log.length > 10_000) log = log.slice(-5_000);
    this.#action = takeFault(`${method} ${path}`);
    this.#answerHead = this.#action === undefined ? undefined : Buffer.alloc(0);
    this.#bodySeen = 0;
    const action = this.#action;
    this.#later(() => {
      if (action?.kind === "hang") return;
      if (action?.kind === "reset") return void this.#client.resetAndDestroy();
      if (action?.kind === "status") return void this.#client.write(statusAnswer(action));
      this.#server.write(
        action?.kind === "no_range" ? head.replace(/\r\nrange:[^\r]*/i, "") : head,
        "latin1",
      );
    });
  }

  #later(action: () => void): void {
    if (settings.delayMs === 0) action();
    else setTimeout(action, settings.delayMs);
  }

  #fromServer(chunk: Buffer): void {
    const action = this.#action;
    const breakAfterBytes =
      action?.kind === "truncate"
        ? action.afterBytes
        : action?.kind === "no_range"
          ? action.breakAfterBytes
          : undefined;
    if (action === undefined || (action.kind === "no_range" && breakAfterBytes === undefined)) {
      this.#send(chunk);
      return;
    }
    let body = chunk;
    if (this.#answerHead !== undefined) {
      this.#answerHead = Buffer.concat([this.#answerHead, chunk]);
      const end = this.#answerHead.indexOf("\r\n\r\n");
      if (end < 0) return;
      body = this.#answerHead.subarray(end + 4);
      this.#send(this.#answerHead.subarray(0, end + 4));
      this.#answerHead = undefined;
    }
    const start = this.#bodySeen;
    this.#bodySeen += body.length;
    if (action.kind === "corrupt") {
      const at = action.atByte - start;
      if (at >= 0 && at < body.length) body[at] = (body[at] as number) ^ 0x10;
      this.#send(body);
      return;
    }
    const sendBytes = action.kind === "stall" ? action.afterBytes : breakAfterBytes;
    if (sendBytes === undefined) return;
    if (start < sendBytes) this.#send(body.subarray(0, sendBytes - start));
    if (breakAfterBytes !== undefined && this.#bodySeen >= breakAfterBytes) {
      bucket.take(0, () => this.#client.end());
      this.#server.destroy();
    }
  }

  #send(chunk: Buffer): void {
    if (chunk.length === 0) return;
    bytes += chunk.length;
    this.#server.pause();
    bucket.take(chunk.length, () => {
      if (this.#client.write(chunk)) this.#server.resume();
      else this.#client.once("drain", () => this.#server.resume());
    });
  }
}

function takeFault(request: string): Fault["action"] | undefined {
  const rule = faults.find(({ pattern, left }) => left > 0 && pattern.test(request));
  if (rule === undefined) return undefined;
  rule.left--;
  return rule.fault.action;
}

function statusAnswer(action: { status: number; headers?: Readonly<Record<string, string>> }): string {
  const body = JSON.stringify({ errors: [{ code: "UNKNOWN", message: "fault put in by the test" }] });
  const headers = {
    "content-type": "application/json",
    "content-length": String(body.length),
    ...action.headers,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${action.status} Injected\r\n${lines.join("")}\r\n${body}`;
}

const control = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/faults") {
      const wanted = (await request.json()) as Fault[];
      faults = wanted.map((fault) => ({
        fault,
        pattern: new RegExp(fault.match),
        left: fault.times ?? Infinity,
      }));
    }
    if (pathname === "/reset") {
      requests = 0;
      bytes = 0;
      log = [];
    }
    return Response.json({ requests, bytes, log } satisfies ProxyStats);
  },
});

const server = createServer((client) => void new Connection(client));
const { backlog } = settings;
server.listen({ host: "127.0.0.1", port: 0, ...(backlog === undefined ? {} : { backlog }) }, () => {
  const address = server.address() as { port: number };
  process.stdout.write(`proxy 127.0.0.1:${address.port} control 127.0.0.1:${control.port}\n`);
});
