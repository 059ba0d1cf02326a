import { basename } from "node:path";

/** A request as one of the hosts of a {@link QuirkNet} got it. */
export interface Ask {
  readonly method: string;
  /** Under the name that was asked for: `https://ghcr.io/token?…`. */
  readonly url: URL;
  readonly headers: Headers;
  readonly body: string;
}

export interface Seen extends Ask {
  readonly status: number;
}

export type Answerer = (ask: Ask) => Response | Promise<Response>;

interface Planted {
  readonly name: string;
  readonly value: string;
  readonly hosts: readonly string[];
}

/**
 * Hosts of the Internet, all on one port of loopback and told apart by `Host`: a node that is configured with
 * {@link settings} takes them for the real ones. Writes down every request, whole, so that a test can say which secrets
 * came to which host. Its clock can be put forward: what was issued before is then as old as that.
 */
export class QuirkNet {
  readonly seen: Seen[] = [];
  readonly #routes = new Map<string, Map<string, Answerer>>();
  readonly #planted: Planted[] = [];
  readonly #server: Bun.Server<undefined>;
  #aheadMs = 0;

  constructor() {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch: (request) => this.#answer(request),
    });
  }

  /** `127.0.0.1:PORT` */
  get address(): string {
    return `127.0.0.1:${this.#server.port}`;
  }

  /** Milliseconds since 1970, as these hosts see it. */
  now(): number {
    return Date.now() + this.#aheadMs;
  }

  pass(seconds: number): void {
    this.#aheadMs += seconds * 1000;
  }

  /** Answers what is asked for at the host, at this path and below; the longest path wins. */
  route(host: string, path: string, answerer: Answerer): void {
    const routes = this.#routes.get(host) ?? new Map<string, Answerer>();
    this.#routes.set(host, routes.set(path, answerer));
  }

  /** A value that may be seen at these hosts and at no others. */
  plant(name: string, value: string, hosts: readonly string[]): void {
    this.#planted.push({ name, value, hosts });
  }

  /** Everything that was planted, tokens and signatures that were given out included, each in its spellings. */
  plantedForms(): string[] {
    return this.#planted.flatMap(({ value }) => [value, encodeURIComponent(value), unpadded(value)]);
  }

  /** `[registry.hosts]` of the node: each name leads here. */
  settings(): Record<string, object> {
    const names = [...this.#routes.keys()];
    return Object.fromEntries(names.map((name) => [name, { connect: `http://${this.address}` }]));
  }

  /** What was asked of a host since the request numbered `from`. */
  at(host: string, from = 0): Seen[] {
    return this.seen.slice(from).filter(({ url }) => url.host === host);
  }

  /** Requests to hosts or paths that nobody serves. */
  strays(): string[] {
    return this.seen.filter(({ status }) => status === 599).map(titleOf);
  }

  /** One line per request from number `from` on that held a planted value at a host that it is not for. */
  leaks(from = 0): string[] {
    return this.seen.slice(from).flatMap((seen) => {
      const text = everythingIn(seen);
      return this.#planted
        .filter(({ value, hosts }) => !hosts.includes(seen.url.host) && holds(text, value))
        .map(({ name }) => `${titleOf(seen)} held ${name}`);
    });
  }

  /** How many requests held a value at a host that it is for: proof that {@link leaks} can see it. */
  uses(value: string): number {
    return this.seen.filter((seen) => holds(everythingIn(seen), value)).length;
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url.replace(/^http:/, "https:"));
    const ask = { method: request.method, url, headers: request.headers, body: await request.text() };
    const response = await this.#responseTo(ask);
    this.seen.push({ ...ask, status: response.status });
    return response;
  }

  /** A host that fails is one that nobody serves: a stray, which tests do not forgive. */
  async #responseTo(ask: Ask): Promise<Response> {
    try {
      return (await this.#answererOf(ask.url)?.(ask)) ?? new Response("nobody is here", { status: 599 });
    } catch (error) {
      return new Response(String(error), { status: 599 });
    }
  }

  #answererOf(url: URL): Answerer | undefined {
    const fitting = [...(this.#routes.get(url.host) ?? [])].filter(([path]) => url.pathname.startsWith(path));
    return fitting.toSorted(([one], [other]) => other.length - one.length)[0]?.[1];
  }
}

/** Method, host and the end of the path: what a failed test may show. */
function titleOf({ method, url }: Ask): string {
  return `${method} ${url.host} …/${basename(url.pathname)}`;
}

/** The whole request as text, with what is encoded in it in the clear as well. */
function everythingIn({ url, headers, body }: Ask): string {
  const basic = /^Basic (.+)$/i.exec(headers.get("authorization") ?? "")?.[1] ?? "";
  const fields = [...headers].map(([name, value]) => `${name}: ${value}`);
  const raw = [url.href, ...fields, body].join("\n");
  return [raw, decoded(raw), Buffer.from(basic, "base64").toString("utf8")].join("\n");
}

function decoded(text: string): string {
  return text.replaceAll("+", " ").replace(/(%[0-9a-fA-F]{2})+/g, (part) => {
    return Buffer.from(part.replaceAll("%", ""), "hex").toString("utf8");
  });
}

function holds(text: string, value: string): boolean {
  return text.includes(value) || text.includes(unpadded(value));
}

function unpadded(value: string): string {
  return Buffer.from(value).toString("base64").replace(/=+$/, "");
}
