import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { type Config, makeConfig, readSettings } from "../config.ts";
import { createProvider } from "../credential/create-provider.ts";
import { detectCredentialType } from "../credential/detect.ts";
import { anonymousProvider, type CredentialMap } from "../credential/provider.ts";
import { sourcedProvider } from "../credential/sourced.ts";
import type { BuiltImageIndex } from "../index/image-index.ts";
import { indexRepository } from "../index/index-repository.ts";
import type { LayerKeeper } from "../index/layer-keeper.ts";
import type { IndexLimits } from "../index/limits.ts";
import { IndexStore } from "../index/store.ts";
import { hostPlatform, parsePlatform } from "../reference/platform.ts";
import type { Reference } from "../reference/reference.ts";
import { proxyVariables } from "../registry/proxy.ts";
import type { Repository } from "../registry/repository.ts";
import { createRegistryClient } from "../role/registry-client.ts";

/** How the commands that need no server reach a registry. */
export interface StandaloneFlags {
  readonly config?: string;
  readonly insecureRegistry?: readonly string[];
  readonly platform?: string;
  readonly limit?: readonly string[];
}

export const standaloneFlags = {
  config: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "Configuration file (TOML), of which the [registry] section is used",
    placeholder: "FILE",
  },
  insecureRegistry: {
    kind: "parsed",
    parse: String,
    optional: true,
    variadic: true,
    brief: "Registry that is spoken to over plain HTTP; may be repeated",
    placeholder: "HOST:PORT",
  },
  platform: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "Platform, such as linux/amd64; by default this machine's",
    placeholder: "P",
  },
  limit: {
    kind: "parsed",
    parse: String,
    optional: true,
    variadic: true,
    brief: "Another limit of indexing, such as tar_bytes_max=512Gi; may be repeated",
    placeholder: "NAME=N",
  },
} as const;

/** The limits of indexing with those of `--limit` in their places. @throws ConfigError */
export function limitsOf(flags: StandaloneFlags): IndexLimits {
  const limits = Object.fromEntries(
    (flags.limit ?? []).map((text) => {
      const at = text.indexOf("=");
      return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
    }),
  );
  return makeConfig({ index: { limits } }, "--limit").indexLimits;
}

/** `$XDG_CACHE_HOME/oci-node`, by default below `~/.cache`. */
export function cacheHome(env: Record<string, string | undefined> = process.env): string {
  return join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "oci-node");
}

/** How registries are reached from here, in a form that another process can be told. */
export interface RegistryAccess {
  readonly registry: Config["registry"];
  /** The proxy's variables of the caller's environment, which the other process does not have. */
  readonly proxyVariables: Readonly<Record<string, string>>;
}

/** What the flags say, on top of the configuration file that they name. @throws ConfigError */
export function registryAccess(flags: StandaloneFlags): RegistryAccess {
  const settings = flags.config === undefined ? {} : readSettings(flags.config);
  const { registry } = makeConfig(settings, flags.config);
  const absolute = <T extends { ca_file?: string | undefined }>(of: T): T =>
    of.ca_file === undefined ? of : { ...of, ca_file: resolve(of.ca_file) };
  const hosts = Object.entries(registry.hosts).map(([name, host]) => [name, absolute(host)]);
  return {
    registry: absolute({
      ...registry,
      insecure: [...registry.insecure, ...(flags.insecureRegistry ?? [])],
      hosts: Object.fromEntries(hosts),
    }),
    proxyVariables: proxyVariables(process.env),
  };
}

/**
 * A repository of an image, asked with the credentials given, or without any.
 *
 * @param reread reads the credentials again where they came from, when the registry does not take them any more
 * @throws ConfigError, CredentialError
 */
export function openRepository(
  reference: Reference,
  credentials: CredentialMap | undefined,
  access: RegistryAccess,
  reread?: () => Promise<CredentialMap>,
): Repository {
  const { registry } = reference;
  const client = createRegistryClient({ registry: access.registry, identities: {} }, access.proxyVariables);
  const issuers = { fetch: client.issuerFetch };
  if (credentials === undefined || Object.keys(credentials).length === 0)
    return client.repository(reference, anonymousProvider(registry));
  const provider =
    reread === undefined
      ? createProvider({ registry, type: detectCredentialType(registry, credentials), credentials }, issuers)
      : sourcedProvider(registry, credentials, reread, issuers);
  return client.repository(reference, provider);
}

/** Indexes an image into a store; cheap when it is there. */
export async function indexInto(
  storeDir: string,
  repository: Repository,
  options: {
    readonly platform: string | undefined;
    readonly limits: IndexLimits;
    readonly keeper?: LayerKeeper | undefined;
    readonly signal: AbortSignal;
    readonly onProgress: (progress: { digest: string; bytesDone: number; bytesTotal: number }) => void;
  },
): Promise<BuiltImageIndex & { readonly store: IndexStore }> {
  const platform = options.platform === undefined ? hostPlatform() : parsePlatform(options.platform);
  const resolved = await repository.resolve(platform, options.signal);
  const store = await IndexStore.open(storeDir);
  const built = await indexRepository({
    repository,
    resolved,
    store,
    scratchDir: join(storeDir, "scratch"),
    limits: options.limits,
    keeper: options.keeper,
    onProgress: options.onProgress,
    signal: options.signal,
  });
  return { ...built, store };
}
