import { ecrScope, parseEcrRegistry } from "./ecr-host.ts";
import { isAzure, isGoogle } from "./family.ts";

/** What an access token of Google opens, for those who are shown one: its registries take none that is narrower. */
export function googleScope(registry: string): string {
  return `everything that the account may at Google, not ${registry} alone`;
}

/** What a refresh token of Azure's registries opens. Their token services narrow it to one repository. */
export function azureScope(registry: string): string {
  return `every repository of ${registry} that the identity may pull`;
}

/**
 * What an authorization opens that a cloud's issuer made for one of its registries, in words; `undefined` where the
 * registry is no cloud's.
 */
export function issuedScope(registry: string): string | undefined {
  if (parseEcrRegistry(registry) !== undefined) return ecrScope(registry);
  if (isGoogle(registry)) return googleScope(registry);
  return isAzure(registry) ? azureScope(registry) : undefined;
}

/** What is opened by an authorization that no token service narrowed, in words. */
export function openedBy(registry: string): string {
  return issuedScope(registry) ?? `every repository on ${registry} that its account may pull`;
}
