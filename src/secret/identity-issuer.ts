import { randomUUID } from "node:crypto";
import { type JSONWebKeySet, SignJWT } from "jose";
import { Redacted } from "../std/redacted.ts";
import type { IdentityKeys } from "./identity-keys.ts";
import type { Workspace } from "./workspace-store.ts";

/** Clouds ask for a short life; ten minutes are enough for one exchange and a clock that is off. */
const lifeSeconds = 600;
/** A cloud's clock may be behind ours. */
const backdatedSeconds = 30;

/** `sub` of a workspace's tokens. Names are chosen by the operator and checked when a workspace is made. */
export function subjectOf(workspaceName: string): string {
  return `workspace:${workspaceName}`;
}

/**
 * Issues OpenID Connect tokens that say which workspace asks, and what clouds need to verify them (OpenID Connect
 * Discovery 1.0). Signed with RS256, which all of AWS, Google and Entra take.
 */
export class IdentityIssuer {
  /** `iss`: where clouds find {@link discovery}, below. */
  readonly url: string;
  readonly #keys: IdentityKeys;
  readonly #now: () => number;

  constructor(url: string, keys: IdentityKeys, now: () => number = Date.now) {
    this.url = url;
    this.#keys = keys;
    this.#now = now;
  }

  /** A token of a workspace for one audience, good for ten minutes. Throws SecretError `undecryptable`. */
  async token(workspace: Pick<Workspace, "id" | "name">, audience: string): Promise<Redacted<string>> {
    const { kid, key } = await this.#keys.signing();
    const issuedAt = Math.floor(this.#now() / 1000) - backdatedSeconds;
    const token = await new SignJWT({ workspace_id: workspace.id })
      .setProtectedHeader({ alg: "RS256", typ: "JWT", kid })
      .setIssuer(this.url)
      .setSubject(subjectOf(workspace.name))
      .setAudience(audience)
      .setIssuedAt(issuedAt)
      .setNotBefore(issuedAt)
      .setExpirationTime(issuedAt + lifeSeconds)
      .setJti(randomUUID())
      .sign(key);
    return new Redacted(token);
  }

  /** `/.well-known/openid-configuration` */
  discovery(): Readonly<Record<string, unknown>> {
    return {
      issuer: this.url,
      jwks_uri: `${this.url}/.well-known/jwks.json`,
      response_types_supported: ["id_token"],
      subject_types_supported: ["public"],
      id_token_signing_alg_values_supported: ["RS256"],
      claims_supported: ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "workspace_id"],
    };
  }

  /** `/.well-known/jwks.json` */
  async keySet(): Promise<JSONWebKeySet> {
    return { keys: await this.#keys.published() };
  }
}
