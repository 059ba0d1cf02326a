import { readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { z } from "zod";
import { containerNetwork, endpointSettings } from "./config-containers.ts";
import {
  address,
  limit,
  mirrorList,
  obsolete,
  origin,
  patience,
  proxySetting,
  schedulerUrl,
  size,
} from "./config-fields.ts";
import { identityProblems } from "./config-identities.ts";
import { encryptionKey, identity, identityName, keyName, registryHost, workspace } from "./config-kinds.ts";
import { brokenLine, configProblem } from "./config-problem.ts";
import { secretSetting } from "./config-secret.ts";
import {
  defaultIndexLimits,
  type IndexLimits,
  limitCeilings,
  limitName,
  settableLimits,
} from "./index/limits.ts";
import { CodedError, errnoOf, messageOf } from "./std/error.ts";

export type ConfigErrorCode = "unreadable" | "loose_mode" | "syntax" | "invalid";

/** A configuration that cannot be used; the message names the file and the field. */
export class ConfigError extends CodedError<ConfigErrorCode> {
  override readonly name = "ConfigError";
}

const gateway = z.strictObject({
  listen: address.optional(),
  /** Under which URL it is called, as its certificate has it; absent: where it listens. */
  url: origin.optional(),
  tls_cert_file: z.string().optional(),
  tls_key_file: z.string().optional(),
});

/** Scheduler and workers know each other by certificates that the cluster makes itself. */
const clusterServer = z.strictObject({
  listen: address.optional(),
  tls_cert_file: obsolete("is not needed any more: the cluster makes this certificate itself"),
  tls_key_file: obsolete("is not needed any more: the cluster makes this key itself"),
});

const schema = z
  .strictObject({
    /** Everything that the node keeps: database, keys, index, cache, state of its containers. */
    data_dir: z.string().default("/var/lib/oci-node"),
    log_level: z.enum(["debug", "info", "warning", "error"]).default("info"),
    /** Wraps the keys of all workspaces. Made at the first start; later it must be there. */
    key_file: z.string().optional(),
    /** Further key-encryption keys, by name. Which one wraps what is new is decided by `oci-node key rotate`. */
    keys: z.record(keyName, encryptionKey).default({}),
    /** The one of `[keys]` to begin with, where nothing is encrypted yet; absent: `key_file`. */
    first_key: keyName.optional(),
    database: z
      .strictObject({ /** Absent: the PostgreSQL inside the executable. */ url: z.string().optional() })
      .default({}),
    cluster: z
      .strictObject({
        /** Of a worker's certificate, which renews itself after half of that. */
        certificate_life: patience.default(24 * 3_600_000),
      })
      .default({ certificate_life: 24 * 3_600_000 }),
    health: z
      .strictObject({
        /** How often a credential that is well is tried at its registry. */
        check_interval: patience.default(6 * 3_600_000),
        /** Whether a credential's right to push is tried, by beginning an upload and cancelling it, where nothing says it. */
        probe_push: z.boolean().default(false),
      })
      .default({ check_interval: 6 * 3_600_000, probe_push: false }),
    gateway: gateway.default({}),
    scheduler: clusterServer.default({}),
    worker: clusterServer
      .extend({
        /** Where schedulers and gateways reach it, so no address that stands for all. */
        listen: address
          .refine(({ host }) => !/^(0\.0\.0\.0|[0:]+)$/.test(host), {
            error: "must be an address that schedulers reach, such as 10.0.0.7:7072",
          })
          .optional(),
        name: z.string().optional(),
        /** Where the scheduler listens, for a worker in a process of its own. */
        scheduler_url: schedulerUrl.optional(),
        /** Holds the join token of a worker in a process of its own. */
        token_file: z.string().optional(),
        cpu: z.number().positive().optional(),
        memory: size.optional(),
        cache_dir: z.string().optional(),
        cache_quota: size.optional(),
        /** Read and check what the cache holds before it is served, also what was closed cleanly and not touched since. */
        verify_cache: z.boolean().default(false),
        /** How long a read of a file may wait for the registry, before it ends with EIO. */
        read_deadline: patience.optional(),
        /**
         * How long readers of images wait for a worker that ended to be started again, before they get EIO. It should be
         * as long as an upgrade takes.
         */
        holder_timeout: patience.default(30_000),
        /** `file`: EROFS straight over the FUSE files (Linux ≥ 6.12); `loop`: over loop devices. */
        mount_transport: z.enum(["auto", "file", "loop"]).default("auto"),
        /** Keeps the layers' contents when an image is built. Default: where gateway and worker are one process. */
        cache_on_build: z.boolean().optional(),
        /** Fetches the rest of an image in the background while its containers run. */
        background_fetch: z.boolean().default(true),
        /** Bytes per second that the background of all images together may take; absent: what the link gives. */
        background_bandwidth: size.refine((bytes) => bytes > 0, "must be more than 0").optional(),
        /** Records what starts of a program read, and fetches that ahead of its next start. */
        traces: z.boolean().default(true),
        runtime: z.enum(["runc", "crun", "runsc"]).default("runc"),
        /** `auto`: containers get user namespaces of their own where the kernel and the runtime can. */
        user_namespaces: z.enum(["auto", "off"]).default("auto"),
        /** Of a container's writable layer, where the container asks for none or more; absent: 20 GiB. "0": no limit. */
        storage_limit: size.default(20 * 1024 ** 3),
        /** Uploaded code that is kept unpacked, while nothing uses it. */
        code_cache_quota: size.default(2 * 1024 ** 3),
        network: containerNetwork.default(containerNetwork.parse({})),
      })
      .default({
        holder_timeout: 30_000,
        verify_cache: false,
        mount_transport: "auto",
        background_fetch: true,
        traces: true,
        runtime: "runc",
        user_namespaces: "auto",
        storage_limit: 20 * 1024 ** 3,
        code_cache_quota: 2 * 1024 ** 3,
        network: containerNetwork.parse({}),
      }),
    endpoints: endpointSettings.default(endpointSettings.parse({})),
    index: z
      .strictObject({
        dir: z.string().optional(),
        /** What an image may ask of indexing; see `index/limits.ts`. */
        limits: z
          .strictObject(
            Object.fromEntries(
              settableLimits.map((name) => [limitName(name), limit(limitCeilings[name]).optional()]),
            ),
          )
          .default({}),
      })
      .default({ limits: {} }),
    registry: z
      .strictObject({
        /** `host:port` that are spoken to over plain HTTP and may have private addresses. */
        insecure: z.array(z.string()).default([]),
        /** Hosts that may have private addresses, over HTTPS. */
        private: z.array(z.string()).default([]),
        /** Token servers on another host, by registry. */
        realms: z.record(z.string(), z.array(z.string())).default({}),
        /** PEM file with further certificate authorities. */
        ca_file: z.string().optional(),
        /** By registry: mirrors that are asked for its blobs first, in this order. */
        mirrors: z.record(z.string(), mirrorList).default({}),
        /** Requests at once to one host. */
        connections_per_host: z.number().int().positive().max(256).optional(),
        /** For all hosts; absent: HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the node's environment. */
        proxy: proxySetting.optional(),
        /** By host: what is different there. */
        hosts: z.record(z.string(), registryHost).default({}),
      })
      .default({ insecure: [], private: [], realms: {}, mirrors: {}, hosts: {} }),
    identity: z
      .strictObject({
        /**
         * Under which URL clouds find the gateway's `/.well-known/openid-configuration`. Absent: workspaces have no tokens
         * of their own, so roles and federation need another source.
         */
        issuer: z.string().optional(),
      })
      .default({}),
    identities: z.record(identityName, identity).default({}),
    /** What the operator allows a workspace, by its name. */
    workspaces: z.record(z.string(), workspace).default({}),
  })
  .superRefine((settings, context) => {
    for (const { path, message } of identityProblems(settings)) {
      context.addIssue({ code: "custom", path: [...path], message });
    }
  });

export type ConfigFile = z.infer<typeof schema>;
export type IdentitySettings = z.infer<typeof identity>;
export type RegistryHostSettings = z.infer<typeof registryHost>;
export type WorkspaceSettings = z.infer<typeof workspace>;

/** The configuration with every place worked out. */
export interface Config extends ConfigFile {
  /** The file that it was read from; `undefined` without one. */
  readonly source: string | undefined;
  readonly keyFile: string;
  readonly indexDir: string;
  readonly indexLimits: IndexLimits;
  readonly cacheDir: string;
  readonly stateDir: string;
  readonly workerName: string;
}

/** Settings as they are written, not checked yet. */
export type Settings = z.input<typeof schema>;

/** What is said of a workspace, or what holds for one of which nothing is said. */
export function workspaceSettings(config: Pick<ConfigFile, "workspaces">, name: string): WorkspaceSettings {
  const named = Object.hasOwn(config.workspaces, name) ? config.workspaces[name] : undefined;
  return named ?? workspace.parse({});
}

/** Reads a configuration file (TOML). Unknown fields and modes that let others write are refused. */
export function readConfig(path: string): Config {
  return makeConfig(readSettings(path), path);
}

/** The settings in a configuration file, for {@link makeConfig} to check. */
export function readSettings(path: string): Settings {
  const { text, mode } = readStrictly(path);
  const settings = parseSettings(text, path);
  const secret = secretSetting(settings);
  if (secret === undefined || (mode & 0o004) === 0) return settings;
  throw new ConfigError("loose_mode", `${path}: everybody can read it, and ${secret} holds a secret`, {
    next: `Run: chmod o-r ${path}`,
  });
}

function parseSettings(text: string, path: string): Settings {
  try {
    return Bun.TOML.parse(text) as Settings;
  } catch (cause) {
    const line = brokenLine(text, isToml);
    const where = line === undefined ? path : `${path}: line ${line}`;
    // `Strings must be quoted: "hunter2"`: the value may be a password.
    const why = messageOf(cause).replace(/:? ".*$/s, "");
    throw new ConfigError("syntax", `${where}: not TOML: ${why}`, {
      next: "Correct that line, or the value that begins there.",
    });
  }
}

function isToml(text: string): boolean {
  try {
    Bun.TOML.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** A configuration out of settings, such as the flags of `dev`. */
export function makeConfig(settings: Settings, source?: string): Config {
  const parsed = schema.safeParse(settings);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const { field, message } = issue === undefined ? { field: "", message: "invalid" } : configProblem(issue);
    throw new ConfigError("invalid", `${source ?? "flags"}: ${field === "" ? "" : `${field}: `}${message}`, {
      next: "Correct the field; OPERATING.md lists all of them.",
    });
  }
  // Processes of the node's own work in other folders.
  const config = { ...parsed.data, data_dir: resolve(parsed.data.data_dir) };
  return {
    ...config,
    source,
    keyFile: config.key_file ?? join(config.data_dir, "key"),
    indexDir: resolve(config.index.dir ?? join(config.data_dir, "index")),
    indexLimits: indexLimits(config.index.limits),
    cacheDir: resolve(config.worker.cache_dir ?? join(config.data_dir, "cache")),
    stateDir: join(config.data_dir, "worker"),
    workerName: config.worker.name ?? hostname(),
  };
}

/** The standing limits with those that were set in their places. */
function indexLimits(set: Readonly<Record<string, number | undefined>>): IndexLimits {
  const named = settableLimits.map((name) => [name, set[limitName(name)] ?? defaultIndexLimits[name]]);
  return { ...defaultIndexLimits, ...Object.fromEntries(named) };
}

function readStrictly(path: string): { readonly text: string; readonly mode: number } {
  try {
    const { mode } = statSync(path);
    if ((mode & 0o022) !== 0) {
      throw new ConfigError("loose_mode", `${path}: others than its owner can write it`, {
        next: `Run: chmod go-w ${path}`,
      });
    }
    return { text: readFileSync(path, "utf8"), mode };
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError("unreadable", `${path}: cannot be read (${errnoOf(error) ?? messageOf(error)})`, {
      next: "Check the path given with --config.",
    });
  }
}
