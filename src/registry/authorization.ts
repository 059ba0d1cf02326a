import { tokenEndsAtMs } from "../credential/jwt.ts";
import type { RegistryAuthorization } from "../credential/provider.ts";

/** The value of an Authorization header for a user name and a password (RFC 7617, UTF-8). */
export function basicHeader(authorization: Extract<RegistryAuthorization, { kind: "basic" }>): string {
  const pair = `${authorization.username}:${authorization.password.expose()}`;
  return `Basic ${Buffer.from(pair, "utf8").toString("base64")}`;
}

/**
 * When an authorization ends by its own word, in milliseconds since 1970: a JSON Web Token's `exp`, or the `expiration` of
 * the document that a password of Amazon ECR is. `undefined`: it does not say.
 */
export function endOf(authorization: RegistryAuthorization): number | undefined {
  if (authorization.kind === "anonymous") return undefined;
  if (authorization.kind !== "basic") return tokenEndsAtMs(authorization.token);
  const { username, password } = authorization;
  return username === "AWS" ? ecrPasswordEndsAt(password.expose()) : tokenEndsAtMs(password);
}

/** What lies beyond is no date that can be told. */
const latestSeconds = Date.UTC(9999, 0) / 1000;

function ecrPasswordEndsAt(password: string): number | undefined {
  try {
    const document = JSON.parse(Buffer.from(password, "base64").toString("utf8")) as { expiration?: unknown };
    const { expiration } = document;
    const sound = typeof expiration === "number" && expiration >= 0 && expiration <= latestSeconds;
    return sound ? expiration * 1000 : undefined;
  } catch {
    return undefined;
  }
}
