import type { Redacted } from "../std/redacted.ts";

/**
 * The claims of a JSON Web Token (RFC 7519), read and not verified: for tokens that are not for us, of which we want to
 * know the end, and for our own, to tell what was said in them. `undefined` for whatever is no such token.
 */
export function claimsOf(token: Redacted<string>): Readonly<Record<string, unknown>> | undefined {
  const parts = token.expose().split(".");
  if (parts.length !== 3) return undefined;
  try {
    const claims: unknown = JSON.parse(Buffer.from(parts[1] ?? "", "base64url").toString("utf8"));
    return typeof claims === "object" && claims !== null && !Array.isArray(claims)
      ? (claims as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** Nobody's token lives longer, and every date up to here can be written down (RFC 3339 knows four digits of a year). */
const latestMs = Date.UTC(9999, 0);

/** When a token ends by its own word (`exp`), in milliseconds since 1970; `undefined` when it does not say, or nonsense. */
export function tokenEndsAtMs(token: Redacted<string>): number | undefined {
  const exp = claimsOf(token)?.["exp"];
  return typeof exp === "number" && exp >= 0 && exp * 1000 <= latestMs ? exp * 1000 : undefined;
}

/** Who a token speaks for and to whom, in words for an error. Names only: a claim of another form is left out. */
export function sayClaims(token: Redacted<string>): string {
  const claims = claimsOf(token) ?? {};
  const name = (key: string): string => {
    const value = Array.isArray(claims[key]) ? claims[key][0] : claims[key];
    return typeof value === "string" && /^[\x21-\x7e]{1,255}$/.test(value) ? value : "unknown";
  };
  return `issuer ${name("iss")}, subject ${name("sub")}, audience ${name("aud")}`;
}
