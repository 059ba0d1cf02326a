import { readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { z } from "zod";
import { identityProblems } from "./config-identities.ts";
import { brokenLine, configProblem } from "./config-problem.ts";
import { secretSetting } from "./config-secret.ts";
import { pluginApiVersions } from "./credential/plugin-answer.ts";
import { parseImagePattern } from "./credential/plugin-match.ts";
import {
  defaultIndexLimits,
  type IndexLimits,
  limitCeilings,
  limitName,
  settableLimits,
} from "./index/limits.ts";
import { parseDuration } from "./std/duration.ts";
import { CodedError, errnoOf, messageOf } from "./std/error.ts";
import { parseSize } from "./std/size.ts";

export type ConfigErrorCode = "unreadable" | "loose_mode" | "syntax" | "invalid";

/** A configuration that cannot be used; the message names the file and the field. */
export class ConfigError extends CodedError<ConfigErrorCode> {
  override readonly name = "ConfigError";
}

/** Where a server listens: `HOST:PORT`, `[::1]:PORT`; port 0 takes any free one. */
const address = z
  .string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, "must be HOST:PORT")
  .transform((text) => {
    const at = text.lastIndexOf(":");
    return { host: text.slice(0, at).replace(/^\[|\]$/g, ""), port: Number(text.slice(at + 1)) };
  });

const size = z.string().transform((text, context) => {
  const bytes = parseSize(text);
  if (bytes === undefined)
    context.addIssue({ code: "custom", message: "must be a size such as 512Mi or 20G" });
  return bytes ?? 0;
});

/** Of `[index.limits]`: a size, or a whole number. */
const limit = (ceiling: number) =>
  z
    .union([z.number(), z.string()])
    .transform((value) => (typeof value === "number" ? value : (parseSize(value) ?? Number.NaN)))
    .refine((value) => Number.isInteger(value) && value > 0 && value <= ceiling, {
      message: `must be a whole number or a size, from 1 to ${ceiling}`,
    });

/** A span of time for which something may wait: not 0, and no more than a timer can count. */
const patience = z.string().transform((text, context) => {
  const ms = parseDuration(text);
  if (ms === undefined || ms === 0 || ms > 24 * 3_600_000)
    context.addIssue({ code: "custom", message: "must be a time such as 30s or 2m, up to 24h" });
  return ms ?? 0;
});

/** Of a mirror: `https://HOST[:PORT][/PATH]`, or `http:` for one that is spoken to in the clear. */
const mirrorUrl = z.string().refine((text) => {
  const url = URL.parse(text);
  return url !== null && /^https?:$/.test(url.protocol) && url.username + url.search + url.hash === "";
}, "must be a URL such as https://mirror.lan:5000");

const mirrorList = z.array(
  z.union([mirrorUrl, z.strictObject({ url: mirrorUrl, ns: z.boolean().default(false) })]),
);

/** Scheme, host and port and nothing else. */
const origin = z
  .string()
  .refine(
    (text) => /^https?:$/.test(URL.parse(text)?.protocol ?? "") && URL.parse(text)?.origin === text,
    "must be an origin such as http://127.0.0.1:5000",
  );

/** `http://HOST:PORT`; user name and password of the proxy may be in it. */
const proxyUrl = z
  .string()
  .refine(
    (text) => /^https?:$/.test(URL.parse(text)?.protocol ?? ""),
    "must be a URL such as http://proxy.lan:3128",
  );

const proxySetting = z.union([z.literal("none"), proxyUrl], {
  error: 'must be "none", or a URL such as http://proxy.lan:3128',
});

/** What the operator says of one host, by its name as it stands in references and realms. */
const registryHost = z.strictObject({
  /** Plain HTTP, at whatever address. */
  insecure: z.boolean().default(false),
  /** HTTPS with a private address. */
  private: z.boolean().default(false),
  /** Where the host really is; requests keep its name (`Host`, TLS server name). */
  connect: origin.optional(),
  /** PEM file with authorities for this host, in addition to the others. */
  ca_file: z.string().optional(),
  /** A proxy for this host alone, or `none`. */
  proxy: proxySetting.optional(),
  mirrors: mirrorList.default([]),
  /** Hosts of its token service. */
  realms: z.array(z.string()).default([]),
  connections: z.number().int().positive().max(256).optional(),
});

const identityName = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}$/, "must be a short name such as prod-ecr");

/** The operator's own identities at clouds: what the hosts of this node are, there. */
const identityKinds = [
  z.strictObject({
    type: z.literal("aws"),
    /** EC2 instance profile (IMDSv2), ECS or EKS container credentials, or a web identity token (IRSA). */
    source: z.enum(["instance", "container", "web_identity"]),
    /** Container credentials: what ECS or EKS put into the environment of the node. */
    container_credentials_uri: z.url().optional(),
    container_token_file: z.string().optional(),
    web_identity_token_file: z.string().optional(),
    /** Of `web_identity`: that role; of the others: a role to go on to. */
    role_arn: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("gcp"),
    /** The metadata server's default service account. */
    source: z.enum(["metadata"]),
    /** Goes on to this service account. */
    service_account: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("azure"),
    /** Managed identity (IMDS), or a federated token in a file (workload identity). */
    source: z.enum(["managed", "workload"]),
    client_id: z.string().optional(),
    tenant_id: z.string().optional(),
    token_file: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("plugin"),
    /** A kubelet credential provider: asked with a CredentialProviderRequest on its standard input. */
    command: z.array(z.string()).nonempty(),
    env: z.record(z.string(), z.string()).default({}),
    /** As in the kubelet's CredentialProviderConfig. */
    match_images: z
      .array(
        z
          .string()
          .refine((text) => parseImagePattern(text) !== undefined, "must be a pattern such as *.acme.test"),
      )
      .nonempty(),
    api_version: z.enum(pluginApiVersions).default(pluginApiVersions[0]),
    timeout: patience.default(30_000),
  }),
] as const;

const identity = z.discriminatedUnion("type", identityKinds, {
  error: 'must be "aws", "gcp", "azure" or "plugin"',
});

const workspace = z.strictObject({
  /** Whether its containers may use the host's network. */
  host_network: z.boolean().default(false),
  /** Identities of `[identities]` that its credentials may name. */
  identities: z.array(identityName).default([]),
  /** The one that is used where a build or a run has no credential. */
  default_identity: identityName.optional(),
  /**
   * What workers get: `minted`, a short-lived authorization where one can be had, renewed with the scheduler; or
   * `sealed`, the credential itself, which needs no scheduler later on.
   */
  credential_delivery: z.enum(["minted", "sealed"]).default("minted"),
  /** Whether `credential get` may give out a stored password where nothing short-lived can be had. */
  release_credentials: z.boolean().default(false),
});

const server = z.strictObject({
  listen: address.optional(),
  tls_cert_file: z.string().optional(),
  tls_key_file: z.string().optional(),
});

const schema = z
  .strictObject({
    /** Everything that the node keeps: database, keys, index, cache, state of its containers. */
    data_dir: z.string().default("/var/lib/oci-node"),
    log_level: z.enum(["debug", "info", "warning", "error"]).default("info"),
    /** Wraps the keys of all workspaces. Made at the first start; later it must be there. */
    key_file: z.string().optional(),
    database: z
      .strictObject({ /** Absent: the PostgreSQL inside the executable. */ url: z.string().optional() })
      .default({}),
    gateway: server.default({}),
    scheduler: server.default({}),
    worker: server
      .extend({
        name: z.string().optional(),
        /** Where the scheduler listens, for a worker in a process of its own. */
        scheduler_url: z.url().optional(),
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
      })
      .default({
        holder_timeout: 30_000,
        verify_cache: false,
        mount_transport: "auto",
        background_fetch: true,
        traces: true,
        runtime: "runc",
      }),
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
    throw new ConfigError("syntax", `${where}: not TOML: ${messageOf(cause)}`, {
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
      next: "Correct the field; the README lists all of them.",
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
