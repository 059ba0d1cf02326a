import { readFileSync } from "node:fs";
import { type Config, ConfigError, type RegistryHostSettings } from "../config.ts";
import { normalizeRegistry, registryApiHost } from "../reference/reference.ts";
import { RegistryClient } from "../registry/client.ts";
import type { Mirror } from "../registry/mirror.ts";
import type { HostPolicy, RegistryPolicy } from "../registry/policy.ts";
import { noProxies, type Proxies, proxiesFromEnvironment, proxyForAll } from "../registry/proxy.ts";
import { messageOf } from "../std/error.ts";
import { Redacted } from "../std/redacted.ts";
import { userAgent } from "../std/version.ts";

/** What of the configuration a registry client goes by. */
export type RegistrySettings = Pick<Config, "registry" | "identities">;

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * A registry client with what the operator allows it. The environment is read now, for its proxies, and then no more.
 * @throws ConfigError, by the name of the setting
 */
export function createRegistryClient(
  config: RegistrySettings,
  env: Environment = process.env,
): RegistryClient {
  return new RegistryClient({
    policy: registryPolicy(config.registry, env),
    metadataHosts: Object.values(config.identities).flatMap((identity) =>
      identity.type === "aws" && identity.container_credentials_uri !== undefined
        ? [identity.container_credentials_uri]
        : [],
    ),
    userAgent,
  });
}

/** The `[registry]` section as the registry room knows it; what is said of one host is added to what is said of all. */
export function registryPolicy(settings: Config["registry"], env: Environment): RegistryPolicy {
  const { insecure, private: privateHosts, realms, ca_file: caFile } = settings;
  const { connections_per_host: connectionsPerHost } = settings;
  const hosts = normalized("registry.hosts", settings.hosts);
  const those = (wanted: (host: RegistryHostSettings) => boolean) =>
    [...hosts].filter(([, host]) => wanted(host)).map(([name]) => name);
  return {
    insecureHosts: bothNames([
      ...insecure.map(named("registry.insecure")),
      ...those((host) => host.insecure),
    ]),
    privateHosts: bothNames([
      ...privateHosts.map(named("registry.private")),
      ...those((host) => host.private),
    ]),
    mirrors: new Map([
      ...[...normalized("registry.mirrors", settings.mirrors)].map(mirrorsOf),
      ...[...hosts]
        .filter(([, host]) => host.mirrors.length > 0)
        .map(([n, host]) => mirrorsOf([n, host.mirrors])),
    ]),
    realmHosts: realmHosts(normalized("registry.realms", realms), hosts),
    hosts: new Map([...hosts].map(([name, host]) => [registryApiHost(name), hostPolicyOf(name, host)])),
    proxies: proxiesOf(settings.proxy, env),
    ...(caFile === undefined ? {} : { ca: readCa("registry.ca_file", caFile) }),
    ...(connectionsPerHost === undefined ? {} : { connectionsPerHost }),
  };
}

function hostPolicyOf(name: string, settings: RegistryHostSettings): HostPolicy {
  const { connect, ca_file: caFile, connections, proxy } = settings;
  if (connect !== undefined && proxy !== undefined && proxy !== "none")
    throw new ConfigError("invalid", `registry.hosts."${name}": connect and proxy are both set`, {
      next: "Set one of them: what is elsewhere is reached directly.",
    });
  return {
    ...(proxy === undefined ? {} : { proxy: proxy === "none" ? proxy : new Redacted(new URL(proxy)) }),
    ...(connect === undefined ? {} : { connect: new URL(connect) }),
    ...(caFile === undefined ? {} : { ca: readCa(`registry.hosts."${name}".ca_file`, caFile) }),
    ...(connections === undefined ? {} : { connections }),
  };
}

function proxiesOf(setting: string | undefined, env: Environment): Proxies {
  if (setting === "none") return noProxies;
  if (setting !== undefined) return proxyForAll(new URL(setting));
  try {
    return proxiesFromEnvironment(env);
  } catch (error) {
    throw new ConfigError("invalid", `the environment's ${messageOf(error)} is not the URL of a proxy`, {
      next: 'Write it as http://HOST:PORT, or set [registry] proxy, to "none" for no proxy at all.',
    });
  }
}

/** A registry and the host that its requests go to are two names of Docker Hub's only. */
function bothNames(registries: readonly string[]): ReadonlySet<string> {
  return new Set(registries.flatMap((registry) => [registry, registryApiHost(registry)]));
}

function realmHosts(
  realms: ReadonlyMap<string, readonly string[]>,
  hosts: ReadonlyMap<string, RegistryHostSettings>,
): ReadonlyMap<string, readonly string[]> {
  const all = new Map(
    [...realms].map(([registry, list]) => [registry, list.map(hostOf(`registry.realms."${registry}"`))]),
  );
  for (const [registry, host] of hosts) {
    const list = host.realms.map(hostOf(`registry.hosts."${registry}".realms`));
    if (list.length > 0) all.set(registry, [...(all.get(registry) ?? []), ...list]);
  }
  return all;
}

/** A table by registry, by the name that each has everywhere here. */
function normalized<T>(setting: string, table: Readonly<Record<string, T>>): ReadonlyMap<string, T> {
  const all = new Map<string, T>();
  for (const [key, value] of Object.entries(table)) {
    const name = named(setting)(key);
    if (all.has(name))
      throw new ConfigError("invalid", `${setting}: ${key} names ${name} a second time`, {
        next: "Write one table for each host.",
      });
    all.set(name, value);
  }
  return all;
}

function named(setting: string): (host: string) => string {
  return (host) => {
    try {
      return normalizeRegistry(host);
    } catch {
      const shown = JSON.stringify(host.replace(/\/\/[^/]*@/, "//…@"));
      throw new ConfigError("invalid", `${setting}: ${shown} is not the name of a host`, {
        next: "Write HOST or HOST:PORT, without https:// and without a path.",
      });
    }
  };
}

/** A host that is no registry: as it is, once it is seen to be one. */
function hostOf(setting: string): (host: string) => string {
  return (host) => {
    named(setting)(host);
    return host.toLowerCase();
  };
}

function mirrorsOf([registry, list]: readonly [string, Config["registry"]["mirrors"][string]]): [
  string,
  Mirror[],
] {
  return [
    registry,
    list.map((setting) =>
      typeof setting === "string"
        ? { url: new URL(setting), namespaced: false }
        : { url: new URL(setting.url), namespaced: setting.ns },
    ),
  ];
}

function readCa(setting: string, path: string): string {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    throw new ConfigError("invalid", `${setting}: ${path} cannot be read`, { next: "Check the path." });
  }
  // Without this check it would be as if there were no such file, until the host's certificate is refused.
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new ConfigError("invalid", `${setting}: there is no certificate in ${path}`, {
    next: "Name a PEM file with the certificates of authorities (-----BEGIN CERTIFICATE-----).",
  });
}
