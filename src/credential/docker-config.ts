import { z } from "zod";
import { normalizeRegistry } from "../reference/reference.ts";
import { askDockerHelper, type HelperOptions } from "./docker-helper.ts";
import { CredentialError } from "./error.ts";
import type { CredentialMap } from "./provider.ts";
import { credentialMap } from "./value.ts";

const entrySchema = z.object({
  auth: z.string().nullish(),
  username: z.string().nullish(),
  password: z.string().nullish(),
  identitytoken: z.string().nullish(),
  registrytoken: z.string().nullish(),
});
const configSchema = z.object({
  auths: z.record(z.string(), entrySchema).nullish(),
  credsStore: z.string().nullish(),
  credHelpers: z.record(z.string(), z.string()).nullish(),
});

type Entry = z.infer<typeof entrySchema>;

/** What stands in a `config.json`, an `auth.json` or a `.dockercfg`. */
export type DockerConfig = z.infer<typeof configSchema>;

/** For what a credential is looked up. A {@link import("../reference/reference.ts").Reference} is one. */
export interface CredentialTarget {
  readonly registry: string;
  readonly repository?: string;
}

export interface DockerConfigOptions {
  /** What the configuration is called in an error. */
  readonly owner: string;
  /** Keys may name a part of a registry (`ghcr.io/acme`), and the longest that fits wins; for Docker they are hosts. */
  readonly namespaces: boolean;
  /** Absent: credential helpers are not run. */
  readonly helpers?: HelperOptions | undefined;
}

const configSizeMax = 1024 * 1024;
const spellingsMax = 6;

/**
 * The content of a configuration's text. `legacy`: of a `.dockercfg`, whose entries stand without `auths` around them.
 *
 * @throws CredentialError `bad_value`
 */
export function parseDockerConfig(text: string, owner: string, legacy = false): DockerConfig {
  try {
    if (text.length <= configSizeMax) return dockerConfigOf(JSON.parse(text), owner, legacy);
  } catch {
    // The parser's message could quote a password.
  }
  throw malformed(owner);
}

/** As {@link parseDockerConfig}, of what was parsed already. */
export function dockerConfigOf(json: unknown, owner: string, legacy = false): DockerConfig {
  const parsed = configSchema.safeParse(legacy ? { auths: json } : json);
  if (parsed.success) return parsed.data;
  throw malformed(owner);
}

function malformed(owner: string): CredentialError {
  return new CredentialError("bad_value", `${owner} is not the JSON that Docker writes`, {
    next: 'It should hold {"auths":{"HOST":{"auth":"…"}}}; log in again, or correct it.',
  });
}

/**
 * A registry's credential from a configuration: what its credential helper has (the one of `credHelpers`, else
 * `credsStore`), else the entry in `auths` (`auth`, `username` and `password`, `identitytoken`, `registrytoken`). As Docker
 * does, but for an entry of its own that stands beside a helper which knows nothing: it is used.
 *
 * @throws CredentialError `bad_value`, and those of {@link askDockerHelper}: a helper that fails is not passed over
 */
export async function findInDockerConfig(
  target: CredentialTarget,
  config: DockerConfig,
  options: DockerConfigOptions,
): Promise<CredentialMap | undefined> {
  const { registry } = target;
  const helper = helperOf(registry, config);
  if (helper && options.helpers !== undefined) {
    const servers = spellingsOf(registry, config);
    const kept = await askDockerHelper(helper, registry, servers, options.helpers);
    if (kept !== undefined) return kept;
  }
  const values = entriesFor(target, config.auths ?? {}, options.namespaces)
    .map((entry) => valuesOf(registry, entry, options.owner))
    .find((found) => found !== undefined);
  return values === undefined ? undefined : credentialMap(values);
}

/** The helper that keeps a registry's credential; an empty name in `credHelpers` means the file itself. */
export function helperOf(registry: string, config: DockerConfig): string | undefined {
  const own = Object.entries(config.credHelpers ?? {}).find(([key]) => placeOf(key)?.registry === registry);
  return (own?.[1] ?? config.credsStore) || undefined;
}

/** What a key, or the address that a helper is asked for, names. */
export interface Place {
  readonly registry: string;
  /** Empty: all of the registry. */
  readonly path: string;
}

/** Keys are written as a host, as a URL, as `https://index.docker.io/v1/`, or with a part of a repository behind. */
export function placeOf(key: string): Place | undefined {
  const [host = "", ...rest] = key
    .replace(/^https?:\/\//, "")
    .replace(/\/+$/, "")
    .split("/");
  const path = rest.join("/");
  try {
    return { registry: normalizeRegistry(host), path: /^v[12]$/.test(path) ? "" : path };
  } catch {
    return undefined;
  }
}

/** The entries that fit, the most specific first. */
function entriesFor(
  { registry, repository = "" }: CredentialTarget,
  auths: Readonly<Record<string, Entry>>,
  namespaces: boolean,
): readonly Entry[] {
  const fits = (place: Place): boolean => {
    if (place.registry !== registry) return false;
    return place.path === "" || (namespaces && `${repository}/`.startsWith(`${place.path}/`));
  };
  return Object.entries(auths)
    .flatMap(([key, entry]) => {
      const place = placeOf(key);
      return place !== undefined && fits(place) ? [{ length: place.path.length, entry }] : [];
    })
    .toSorted((one, other) => other.length - one.length)
    .map(({ entry }) => entry);
}

/** A registry's address as Docker and kubectl write it. */
export function dockerServerOf(registry: string): string {
  return registry === "docker.io" ? "https://index.docker.io/v1/" : registry;
}

/** Under which addresses a helper may know a registry: as the config spells it, then as Docker does. */
function spellingsOf(registry: string, config: DockerConfig): readonly string[] {
  const written = [...Object.keys(config.credHelpers ?? {}), ...Object.keys(config.auths ?? {})].filter(
    (key) => {
      const place = placeOf(key);
      return place?.registry === registry && place.path === "";
    },
  );
  const usual =
    registry === "docker.io"
      ? [dockerServerOf(registry), "index.docker.io", "docker.io"]
      : [registry, `https://${registry}`];
  const preferred = registry === "docker.io" ? usual.slice(0, 1) : [];
  return [...new Set([...preferred, ...written, ...usual])].slice(0, spellingsMax);
}

/** `undefined` for the empty entry that Docker leaves behind when a helper keeps the credential. */
function valuesOf(registry: string, entry: Entry, owner: string): Record<string, string> | undefined {
  if (entry.identitytoken) return { REGISTRY_IDENTITY_TOKEN: entry.identitytoken };
  if (entry.registrytoken) return { REGISTRY_TOKEN: entry.registrytoken };
  if (entry.username && entry.password) return { USERNAME: entry.username, PASSWORD: entry.password };
  if (!entry.auth) return undefined;
  const decoded = Buffer.from(entry.auth, "base64").toString("utf8").replace(/\0+$/, "");
  const colon = decoded.indexOf(":");
  if (colon <= 0 || colon === decoded.length - 1) {
    throw new CredentialError("bad_value", `${owner} holds a malformed auth for ${registry}`, {
      next: `Log in to ${registry} again, or correct the entry.`,
    });
  }
  return { USERNAME: decoded.slice(0, colon), PASSWORD: decoded.slice(colon + 1) };
}
