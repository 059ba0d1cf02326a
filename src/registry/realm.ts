import { registryApiHost } from "../reference/reference.ts";
import { RegistryError, type Where } from "./error.ts";
import { lists, type ResolvedPolicy } from "./policy.ts";

/** Registries whose token service is on another host, as their operators document it. */
const knownRealms: ReadonlyMap<string, readonly string[]> = new Map([
  ["docker.io", ["auth.docker.io"]],
  ["registry.gitlab.com", ["gitlab.com"]],
  ["nvcr.io", ["authn.nvidia.com"]],
  ["registry.digitalocean.com", ["api.digitalocean.com"]],
  ["docker.elastic.co", ["docker-auth.elastic.co"]],
]);

/**
 * The token service that a challenge names, when a credential may be sent to it: on the registry's own host, on a host
 * known for this registry, or on one that the operator approved. Without a credential there is nothing to steal, so any
 * realm will do (where it may lead is the egress's business).
 *
 * @throws RegistryError `egress_refused`
 */
export function checkRealm(
  realm: string,
  where: Where,
  policy: ResolvedPolicy,
  carriesCredential: boolean,
): URL {
  if (!URL.canParse(realm)) throw refusal(where, "names a token service that is not a URL");
  const url = new URL(realm);
  if (url.username !== "" || url.password !== "")
    throw refusal(where, "names a token service with a user name in it");
  const insecure = lists(policy.insecureHosts, url);
  if (url.protocol !== "https:" && !(url.protocol === "http:" && insecure)) {
    throw refusal(where, "names a token service that is not HTTPS");
  }
  url.hash = "";
  if (!carriesCredential || isOfRegistry(url, where.registry, policy)) return url;
  throw refusal(where, `names a token service on another host (${url.host})`, url.host);
}

function isOfRegistry(url: URL, registry: string, policy: ResolvedPolicy): boolean {
  const own = new URL(`${url.protocol}//${registryApiHost(registry)}`).host;
  if (url.host === own) return true;
  if (url.protocol === "https:" && knownRealms.get(registry)?.includes(url.host)) return true;
  if (lists(new Set(policy.realmHosts.get(registry)), url)) return true;
  // Both on the operator's list of hosts of his own: he runs the registry and its token service.
  const registryUrl = new URL(`${url.protocol}//${registry}`);
  return (
    (lists(policy.insecureHosts, url) || lists(policy.privateHosts, url)) &&
    (lists(policy.insecureHosts, registryUrl) || lists(policy.privateHosts, registryUrl))
  );
}

function refusal(where: Where, what: string, host?: string): RegistryError {
  return new RegistryError(
    "egress_refused",
    `${where.registry} ${what}; the credential was not sent`,
    where,
    {
      next:
        host === undefined
          ? "Check the registry's configuration."
          : `If ${host} is this registry's token service, have the operator approve it for ${where.registry}.`,
    },
  );
}
