import { claimsOf } from "../credential/jwt.ts";
import type { RegistryAuthorization } from "../credential/provider.ts";
import type { Redacted } from "../std/redacted.ts";
import type { Where } from "./error.ts";

const githubHost = /^(ghcr\.io|containers\.[a-z0-9.-]+\.ghe\.com)$/;

/**
 * What a token service's token is good for, in words. It was asked for one repository; whether it is narrowed to it, only a
 * JWT's `access` says (distribution, "Token Authentication Implementation").
 */
export function grantedBy(token: RegistryAuthorization, where: Where): string {
  const { registry, repository } = where;
  if (githubHost.test(registry)) {
    return `every package that the account may pull: GitHub's token service does not narrow to ${repository}`;
  }
  const access = token.kind === "bearer" ? accessOf(token.token) : undefined;
  if (access === undefined || access.every((entry) => isPullOf(entry, repository)))
    return `pull ${repository}`;
  return `pull ${repository}, and more: the token service of ${registry} grants what was not asked for`;
}

interface Access {
  readonly type?: unknown;
  readonly name?: unknown;
  readonly actions?: unknown;
}

/** `undefined`: the token does not say. */
export function accessOf(token: Redacted<string>): readonly Access[] | undefined {
  const access = claimsOf(token)?.["access"];
  if (!Array.isArray(access)) return undefined;
  return access.filter((entry): entry is Access => typeof entry === "object" && entry !== null);
}

function isPullOf({ type, name, actions }: Access, repository: string): boolean {
  if (type !== "repository" || name !== repository || !Array.isArray(actions)) return false;
  return actions.every((action) => action === "pull");
}
