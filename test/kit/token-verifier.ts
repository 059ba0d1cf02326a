import { createPublicKey, verify } from "node:crypto";

type Json = Record<string, unknown>;

/**
 * Judges the tokens of an OpenID Connect issuer as clouds do: with its URL, its discovery document and its keys, fetched
 * over HTTP, and nothing else.
 */
export class TokenVerifier {
  /** Why each token was refused; empty text: it was not. */
  readonly outcomes: string[] = [];
  /** What the tokens claimed. */
  readonly claims: Json[] = [];
  /** Where the issuer really is: in place of the origin of its URL. */
  issuerOrigin = "";
  readonly #trusted: { readonly issuer: string; readonly subject: string };

  constructor(trusted: { readonly issuer: string; readonly subject: string }) {
    this.#trusted = trusted;
  }

  /** Whether a token is good for an audience now. */
  async accepts(token: string, audience: string): Promise<boolean> {
    const refusal = await this.#refusal(token, audience).catch(String);
    this.outcomes.push(refusal);
    return refusal === "";
  }

  async #refusal(token: string, audience: string): Promise<string> {
    const [head = "", body = "", signature = ""] = token.split(".");
    const decoded = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString()) as Json;
    const [header, claims] = [decoded(head), decoded(body)];
    this.claims.push(claims);
    const { issuer, subject } = this.#trusted;
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
