import type { RegistryAuthorization } from "../credential/provider.ts";

/** The value of an Authorization header for a user name and a password (RFC 7617, UTF-8). */
export function basicHeader(authorization: Extract<RegistryAuthorization, { kind: "basic" }>): string {
  const pair = `${authorization.username}:${authorization.password.expose()}`;
  return `Basic ${Buffer.from(pair, "utf8").toString("base64")}`;
}
