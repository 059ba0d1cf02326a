/**
 * The claims of a JSON Web Token (RFC 7519), `undefined` when the text is none. Read, not verified: whom it is for will do
 * that; here they only tell when it ends and what it is for.
 */
export function jwtClaims(token: string): Readonly<Record<string, unknown>> | undefined {
  const parts = token.split(".");
  if (parts.length !== 3) return undefined;
  try {
    const claims: unknown = JSON.parse(Buffer.from(parts[1] ?? "", "base64url").toString("utf8"));
    return typeof claims === "object" && claims !== null ? (claims as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** When a token ends by its own word (`exp`), in milliseconds since 1970. */
export function jwtEndsAt(token: string): number | undefined {
  const exp = jwtClaims(token)?.["exp"];
  return typeof exp === "number" && Number.isFinite(exp) ? exp * 1000 : undefined;
}
