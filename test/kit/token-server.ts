import { createPrivateKey, type KeyObject, randomUUID, sign } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import type { Account } from "./registry.ts";

/**
 * A token server for docker-registry: basic credentials in, JWT out (ES256, the certificate in `x5c`), with only the
 * scopes that the account has, as the distribution project's token specification says: asking for more is answered
 * with less, not with an error.
 */
export class TokenServer {
  readonly service = "oci-node-test";
  readonly issuer = "oci-node test token server";
  readonly certificatePath: string;
  /** Every token request so far: who asked for which scopes. */
  readonly requests: { username: string | undefined; wrongPassword: boolean; scopes: string[] }[] = [];
  /** Who is let in. Change it at any time. */
  accounts: readonly Account[];
  /** Answers tokens that live this long. Change it at any time. */
  tokenSeconds: number;
  readonly #server: Bun.Server<undefined>;
  readonly #key: KeyObject;
  readonly #certificate: string;

  private constructor(
    accounts: readonly Account[],
    keyPem: string,
    certificatePem: string,
    certificatePath: string,
    tokenSeconds: number,
  ) {
    this.accounts = accounts;
    this.#key = createPrivateKey(keyPem);
    this.#certificate = certificatePem.replace(/-----[A-Z ]+-----|\s/g, "");
    this.certificatePath = certificatePath;
    this.tokenSeconds = tokenSeconds;
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#answer(request) });
  }

  static async start(accounts: readonly Account[], dir: string, tokenSeconds: number): Promise<TokenServer> {
    const key = join(dir, "token-key.pem");
    const certificate = join(dir, "token-certificate.pem");
    const subject = ["-subj", "/CN=oci-node test token server", "-days", "2"];
    await run(
      [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        ...subject,
        "-keyout",
        key,
        "-out",
        certificate,
      ],
      { timeoutMs: 30_000 },
    );
    return new TokenServer(
      accounts,
      await readFile(key, "utf8"),
      await readFile(certificate, "utf8"),
      certificate,
      tokenSeconds,
    );
  }

  get host(): string {
    return `127.0.0.1:${this.#server.port}`;
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  #answer(request: Request): Response {
    const url = new URL(request.url);
    if (url.pathname !== "/token" || request.method !== "GET")
      return new Response("not found\n", { status: 404 });
    const account = this.#accountOf(request.headers.get("authorization"));
    const scopes = url.searchParams.getAll("scope").flatMap((scope) => scope.split(" "));
    const wrongPassword = account === "wrong";
    this.requests.push({ username: wrongPassword ? undefined : account?.username, wrongPassword, scopes });
    if (account === "wrong") {
      return Response.json(
        { errors: [{ code: "UNAUTHORIZED", message: "wrong user name or password" }] },
        { status: 401 },
      );
    }
    const access =
      account === undefined
        ? []
        : scopes.map((scope) => granted(account, scope)).filter((grant) => grant !== undefined);
    const now = Math.floor(Date.now() / 1000);
    const token = this.#jwt({
      iss: this.issuer,
      aud: this.service,
      sub: account?.username ?? "",
      iat: now,
      nbf: now - 10,
      exp: now + this.tokenSeconds,
      jti: randomUUID(),
      access,
    });
    return Response.json({
      token,
      expires_in: this.tokenSeconds,
      issued_at: new Date(now * 1000).toISOString(),
    });
  }

  #accountOf(authorization: string | null): Account | undefined | "wrong" {
    if (authorization === null) return undefined;
    const text = Buffer.from(authorization.replace(/^Basic /i, ""), "base64").toString();
    return this.accounts.find(({ username, password }) => text === `${username}:${password}`) ?? "wrong";
  }

  #jwt(claims: object): string {
    const header = { typ: "JWT", alg: "ES256", x5c: [this.#certificate] };
    const body = [header, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
      .join(".");
    const signature = sign("sha256", Buffer.from(body), { key: this.#key, dsaEncoding: "ieee-p1363" });
    return `${body}.${signature.toString("base64url")}`;
  }
}

function granted(
  account: Account,
  scope: string,
): { type: string; name: string; actions: string[] } | undefined {
  const match = scope.match(/^repository:(.+):([a-z,*]+)$/);
  if (match === null) return undefined;
  const name = match[1] as string;
  const rules = Object.entries(account.access ?? { "*": ["pull", "push"] as const });
  const allowed = new Set<string>(
    rules
      .filter(([pattern]) => new Bun.Glob(pattern.replace(/^\*$/, "**")).match(name))
      .flatMap(([, actions]) => [...actions]),
  );
  const actions = (match[2] as string).split(",").filter((action) => allowed.has(action));
  return { type: "repository", name, actions };
}
