import { createPublicKey, verify } from "node:crypto";

type Json = Record<string, unknown>;

/** What of a cloud's trust policy names a workspace. */
export interface Trust {
  readonly issuer: string;
  readonly subject: string;
  readonly audience: string;
}

/**
 * Google's security token service as a workspace's token meets it: it fetches the issuer's discovery document and keys over
 * HTTP, verifies the token with nothing but those, and gives an access token for it. Everything else is refused.
 */
export class TokenExchange {
  /** Why each token was refused; empty text: it was not. */
  readonly outcomes: string[] = [];
  /** What the tokens claimed. */
  readonly claims: Json[] = [];
  /** Where the issuer really is: in place of the origin of its URL. */
  issuerOrigin = "";
  readonly #trust: Trust;
  readonly #accessToken: string;
  readonly #server: Bun.Server<undefined>;

  constructor(trust: Trust, accessToken: string) {
    this.#trust = trust;
    this.#accessToken = accessToken;
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#answer(request) });
  }

  get origin(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const form = new URLSearchParams(await request.text());
    const url = new URL(request.url);
    if (request.method !== "POST" || url.pathname !== "/v1/token") return new Response("", { status: 404 });
    const refusal = await this.#refusal(form.get("subject_token") ?? "").catch(String);
    this.outcomes.push(refusal);
    if (refusal !== "") return Response.json({ error: "invalid_grant" }, { status: 400 });
    return Response.json({ access_token: this.#accessToken, token_type: "Bearer", expires_in: 3600 });
  }

  async #refusal(token: string): Promise<string> {
    const [head = "", body = "", signature = ""] = token.split(".");
    const decoded = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString()) as Json;
    const [header, claims] = [decoded(head), decoded(body)];
    this.claims.push(claims);
    const { issuer, subject, audience } = this.#trust;
    if (claims["iss"] !== issuer) return "another issuer";
    const discovery = await this.#fetch(`${issuer}/.well-known/openid-configuration`);
    if (discovery["issuer"] !== issuer) return "the discovery document is another issuer's";
    const { keys } = (await this.#fetch(String(discovery["jwks_uri"]))) as { keys: Json[] };
    const jwk = keys.find((key) => key["kid"] === header["kid"]);
    if (header["alg"] !== "RS256" || jwk === undefined) return "no such key";
    const key = createPublicKey({ key: jwk, format: "jwk" });
    if (!verify("RSA-SHA256", Buffer.from(`${head}.${body}`), key, Buffer.from(signature, "base64url")))
      return "bad signature";
    if (claims["sub"] !== subject) return "another subject";
    if (claims["aud"] !== audience) return "another audience";
    const now = Date.now() / 1000;
    const [from, until] = [Number(claims["nbf"]), Number(claims["exp"])];
    return from <= now && now < until && until - Number(claims["iat"]) <= 600 ? "" : "not its time";
  }

  async #fetch(url: string): Promise<Json> {
    const answer = await fetch(url.replace(new URL(url).origin, this.issuerOrigin));
    if (answer.status !== 200) throw new Error(`${url} answers ${answer.status}`);
    return (await answer.json()) as Json;
  }
}
