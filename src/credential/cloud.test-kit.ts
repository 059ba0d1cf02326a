import { generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto";
import type { IssuerFetch } from "./issuer.ts";

/** A request as a fake issuer sees it. */
export interface CloudRequest {
  readonly method: string;
  /** As the client named it, whatever its address. */
  readonly host: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Headers;
  readonly body: string;
}

export type CloudAnswer = (request: CloudRequest) => Response | Promise<Response>;

/** A key pair that signs JSON Web Tokens, and the public half that a fake verifies them by. */
export class Signer {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;

  constructor() {
    ({ privateKey: this.privateKey, publicKey: this.publicKey } = generateKeyPairSync("rsa", {
      modulusLength: 2048,
    }));
  }

  get pem(): string {
    return this.privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  }

  jwt(claims: object, header: object = {}): string {
    const signed = [{ alg: "RS256", typ: "JWT", ...header }, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
      .join(".");
    return `${signed}.${sign("RSA-SHA256", Buffer.from(signed), this.privateKey).toString("base64url")}`;
  }
}

/** The claims of a token if the key signed it by RS256. */
export function verifiedClaims(token: string, key: KeyObject): Record<string, unknown> | undefined {
  const [header = "", claims = "", signature = ""] = token.split(".");
  try {
    if (JSON.parse(Buffer.from(header, "base64url").toString()).alg !== "RS256") return undefined;
    const good = verify(
      "RSA-SHA256",
      Buffer.from(`${header}.${claims}`),
      key,
      Buffer.from(signature, "base64url"),
    );
    return good ? JSON.parse(Buffer.from(claims, "base64url").toString()) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Hosts of a cloud on loopback. `fetch` takes their names' place: it goes to the server, which sees the name in `Host`;
 * every other host is refused, and that is remembered.
 */
export class FakeCloud implements AsyncDisposable {
  /** Of every request, in order: `POST oauth2.googleapis.com/token`. */
  readonly asked: string[] = [];
  readonly refusedHosts: string[] = [];
  /** In place of the answers of every host, as long as it is set; and of one host's. */
  override: CloudAnswer | undefined;
  overrideOf: readonly [host: string, answer: CloudAnswer] | undefined;
  readonly #server: Bun.Server<undefined>;
  /** By origin, as clients name it: more may be added. */
  readonly hosts: Map<string, CloudAnswer>;

  constructor(hosts: Readonly<Record<string, CloudAnswer>>) {
    this.hosts = new Map(Object.entries(hosts));
    this.#server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: async (request) => {
        const url = new URL(request.url);
        const host = request.headers.get("host") ?? "";
        this.asked.push(`${request.method} ${host}${url.pathname}`);
        const seen: CloudRequest = {
          method: request.method,
          host,
          path: url.pathname,
          query: url.searchParams,
          headers: request.headers,
          body: await request.text(),
        };
        const instead = this.overrideOf?.[0] === host ? this.overrideOf[1] : this.override;
        const answer = instead ?? this.hosts.get(`https://${host}`) ?? this.hosts.get(`http://${host}`);
        return (await answer?.(seen)) ?? new Response("no such host", { status: 421 });
      },
    });
  }

  /** Where all of the hosts really are. */
  get url(): URL {
    return this.#server.url;
  }

  /** Where it listens. */
  get address(): string {
    return this.#server.url.origin;
  }

  readonly fetch: IssuerFetch = (url, init) => {
    const { origin, host, pathname, search } = new URL(url);
    if (!this.hosts.has(origin)) {
      this.refusedHosts.push(origin);
      throw new Error("refused");
    }
    const headers = new Headers(init.headers);
    headers.set("Host", host);
    return fetch(new URL(`${pathname}${search}`, this.#server.url), { ...init, headers });
  };

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}
