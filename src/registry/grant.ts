import { claimsOf } from "../credential/jwt.ts";
import type { RegistryAuthorization } from "../credential/provider.ts";
import type { Redacted } from "../std/redacted.ts";
import type { Challenge } from "./challenge.ts";
import type { Where } from "./error.ts";

const githubHost = /^(ghcr\.io|containers\.[a-z0-9.-]+\.ghe\.com)$/;

/**
 * What a token service's token is good for, in words. It was asked for one repository; whether it is narrowed to it, only a
 * JWT's `access` says (distribution, "Token Authentication Implementation").
 *
 * @param echoed the token is the credential itself
 */
export function grantedBy(token: RegistryAuthorization, where: Where, echoed = false): string {
  const { registry, repository } = where;
  if (githubHost.test(registry)) {
    return `every package that the account may pull: GitHub's token service does not narrow to ${repository}`;
  }
  if (echoed) {
    return `all that the credential may: the token service of ${registry} hands it back and does not narrow to ${repository}`;
  }
  const access = token.kind === "bearer" ? accessOf(token.token) : undefined;
  if (access === undefined || access.every((entry) => isPullOf(entry, repository)))
    return `pull ${repository}`;
  return `pull ${repository}, and more: the token service of ${registry} grants what was not asked for`;
}

/**
 * Whether a refused token was granted less than was asked for, which is to say that the token service knew the credential:
 * by the challenge (`insufficient_scope`, RFC 6750), or by the token itself.
 */
export function grantedLess(
  challenges: readonly Challenge[],
  token: Redacted<string> | undefined,
  { repository }: Where,
): boolean {
  if (challenges.some(({ parameters }) => parameters.get("error") === "insufficient_scope")) return true;
  const access = token === undefined ? undefined : accessOf(token);
  return access !== undefined && !access.some((entry) => entry.name === repository && allowsAny(entry));
}

/** What a token may do in a repository by its own word; `undefined`: it does not say. */
export function actionsIn(token: Redacted<string>, repository: string): ReadonlySet<string> | undefined {
  const own = accessOf(token)?.filter(({ type, name }) => type === "repository" && name === repository);
  const actions = own?.flatMap((entry): unknown[] => (Array.isArray(entry.actions) ? entry.actions : []));
  return actions && new Set(actions.filter((action) => typeof action === "string"));
}

/** Whether a token is the very credential that was sent for it, as it was or as a header would hold it. */
export function echoes(token: Redacted<string>, sent: RegistryAuthorization): boolean {
  if (sent.kind !== "basic") return false;
  const password = sent.password.expose();
  const pair = `${sent.username}:${password}`;
  const base64 = (text: string): string => Buffer.from(text).toString("base64");
  return [password, base64(password), base64(pair)].includes(token.expose());
}

interface Access {
  readonly type?: unknown;
  readonly name?: unknown;
  readonly actions?: unknown;
}

/** `undefined`: the token does not say. */
function accessOf(token: Redacted<string>): readonly Access[] | undefined {
  const access = claimsOf(token)?.["access"];
  if (!Array.isArray(access)) return undefined;
  return access.filter((entry): entry is Access => typeof entry === "object" && entry !== null);
}

/** Some services name what was asked for and grant nothing in it. */
function allowsAny({ actions }: Access): boolean {
  return !Array.isArray(actions) || actions.length > 0;
}

function isPullOf({ type, name, actions }: Access, repository: string): boolean {
  if (type !== "repository" || name !== repository || !Array.isArray(actions)) return false;
  return actions.every((action) => action === "pull");
}
