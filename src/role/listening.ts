import { readFileSync } from "node:fs";
import { type Config, ConfigError } from "../config.ts";
import { parseRegistry } from "../reference/reference.ts";
import { RegistryClient } from "../registry/client.ts";
import type { Mirror } from "../registry/mirror.ts";
import type { ServerTls } from "../rpc/server.ts";
import { userAgent } from "../std/version.ts";

export interface ListenSettings {
  readonly host: string;
  readonly port: number;
  readonly tls?: ServerTls;
}

type Listening = Config["gateway"];

/** Where a role listens. Off loopback it must be TLS: tokens and credentials would cross the network in the clear. */
export function listenSettings(role: string, settings: Listening, defaultPort: number): ListenSettings {
  const { host, port } = settings.listen ?? { host: "127.0.0.1", port: defaultPort };
  const { tls_cert_file: certFile, tls_key_file: keyFile } = settings;
  if ((certFile === undefined) !== (keyFile === undefined)) {
    const missing = certFile === undefined ? "tls_cert_file" : "tls_key_file";
    throw new ConfigError("invalid", `${role}: ${missing} is missing`, {
      next: "Give both files, or neither.",
    });
  }
  if (certFile !== undefined && keyFile !== undefined) return { host, port, tls: { certFile, keyFile } };
  if (!isLoopback(host)) {
    throw new ConfigError("invalid", `${role}: ${host} is not loopback, and TLS is off`, {
      next: "Set tls_cert_file and tls_key_file, or listen on 127.0.0.1.",
    });
  }
  return { host, port };
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** A registry client with what the operator allows it. */
export function createRegistryClient(config: Config): RegistryClient {
  const { insecure, private: privateHosts, realms, ca_file: caFile } = config.registry;
  const mirrors = Object.entries(config.registry.mirrors).map(
    ([registry, urls]) => [parseRegistry(registry), urls.map(mirrorOf)] as const,
  );
  const { connections_per_host: connectionsPerHost } = config.registry;
  return new RegistryClient({
    policy: {
      insecureHosts: new Set(insecure.map((host) => host.toLowerCase())),
      privateHosts: new Set(privateHosts.map((host) => host.toLowerCase())),
      mirrors: new Map(mirrors),
      realmHosts: new Map(Object.entries(realms)),
      ...(caFile === undefined ? {} : { ca: readCa(caFile) }),
      ...(connectionsPerHost === undefined ? {} : { connectionsPerHost }),
    },
    userAgent,
  });
}

function mirrorOf(setting: string | { readonly url: string; readonly ns: boolean }): Mirror {
  const { url, ns } = typeof setting === "string" ? { url: setting, ns: false } : setting;
  return { url: new URL(url), namespaced: ns };
}

function readCa(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    throw new ConfigError("invalid", `registry.ca_file: ${path} cannot be read`, { next: "Check the path." });
  }
}
