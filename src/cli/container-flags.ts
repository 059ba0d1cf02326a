import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ContainerOptionsSchema } from "../gen/oci_node/v1/container_options_pb.ts";
import { Network, type RunContainerRequestSchema } from "../gen/oci_node/v1/container_service_pb.ts";
import {
  parseCount,
  parseCpu,
  parseMemory,
  parsePublish,
  parseRestart,
  parseSeconds,
  parseSecretFile,
  parseSecretVariable,
  parseStorage,
  parseTmpfs,
  parseVolume,
} from "./container-words.ts";
import { readEnvFile } from "./env-file.ts";
import { parseVariable, variablesOf } from "./variable.ts";

/** How containers are run; of an endpoint's containers as well. */
export interface ContainerFlags {
  readonly env?: readonly string[];
  readonly envFile?: readonly string[];
  readonly secretEnv?: readonly ReturnType<typeof parseSecretVariable>[];
  readonly secretFile?: readonly ReturnType<typeof parseSecretFile>[];
  readonly cpu?: number;
  readonly memory?: number;
  readonly network?: "private" | "none" | "host";
  readonly volume?: readonly ReturnType<typeof parseVolume>[];
  readonly tmpfs?: readonly ReturnType<typeof parseTmpfs>[];
  readonly workdir?: string;
  readonly user?: string;
  readonly entrypoint?: string;
  readonly readOnly: boolean;
  readonly pidsLimit?: number;
  readonly storageLimit?: number;
  readonly stopTimeout?: number;
}

/** What an endpoint decides for itself. */
export interface SoleContainerFlags extends ContainerFlags {
  readonly name?: string;
  readonly publish?: readonly ReturnType<typeof parsePublish>[];
  readonly restart?: ReturnType<typeof parseRestart>;
  readonly interactive: boolean;
  readonly tty: boolean;
}

const parsed = (parse: (text: string) => unknown, placeholder: string, brief: string) =>
  ({ kind: "parsed", parse, optional: true, placeholder, brief }) as const;
const several = (parse: (text: string) => unknown, placeholder: string, brief: string) =>
  ({ ...parsed(parse, placeholder, brief), variadic: true }) as const;
const text = (word: string) => word;

export const containerFlags = {
  env: several(parseVariable, "K=V", "Environment variable; without a value, the caller's"),
  envFile: several(text, "FILE", "File with a K=V on each line, as Docker takes it; --env comes after it"),
  secretEnv: several(parseSecretVariable, "SECRET[=K]", "Secret of the workspace as an environment variable"),
  secretFile: several(
    parseSecretFile,
    "SECRET[:PATH]",
    "Secret as a file in memory, by default /run/secrets/SECRET",
  ),
  cpu: parsed(parseCpu, "N", "CPUs, such as 0.5"),
  memory: parsed(parseMemory, "SIZE", "Memory limit, such as 512Mi"),
  network: {
    kind: "enum",
    values: ["private", "none", "host"],
    optional: true,
    brief:
      "private: an address of its own; none: loopback only; host: where allowed. Default: the operator's",
  },
  volume: several(
    parseVolume,
    "SOURCE:TARGET[:ro]",
    "Volume by its name, made where there is none; or a directory of the host, where allowed",
  ),
  tmpfs: several(parseTmpfs, "PATH[:size=64Mi,mode=1777]", "File system in memory"),
  workdir: parsed(text, "DIR", "Working directory, in place of the image's"),
  user: parsed(text, "USER[:GROUP]", "Who the program is, in place of the image's user"),
  entrypoint: parsed(text, "PROGRAM", "In place of the image's entrypoint; an empty word: none"),
  readOnly: { kind: "boolean", default: false, brief: "The root file system cannot be written" },
  pidsLimit: parsed(parseCount, "N", "Processes and threads at most (default 4096)"),
  storageLimit: parsed(parseStorage, "SIZE", "What the container may write to its root file system"),
  stopTimeout: parsed(parseSeconds, "S", "Seconds between the stop signal and SIGKILL (default 10)"),
} as const;

export const containerAliases = { e: "env", v: "volume", w: "workdir", u: "user" } as const;

export const soleContainerFlags = {
  ...containerFlags,
  name: parsed(text, "NAME", "What the container is called; every command takes it"),
  publish: several(
    parsePublish,
    "[ADDRESS:][HOST:]PORT[/udp]",
    "Lead a port of the host to the container's; without HOST any free one, without ADDRESS 127.0.0.1",
  ),
  restart: parsed(parseRestart, "POLICY", "When it starts again: no, always, on-failure[:N]"),
  interactive: { kind: "boolean", default: false, brief: "Keep standard input open" },
  tty: { kind: "boolean", default: false, brief: "Give it a terminal" },
} as const;

export const soleContainerAliases = {
  ...containerAliases,
  p: "publish",
  i: "interactive",
  t: "tty",
} as const;

const networks = { private: Network.PRIVATE, none: Network.NONE, host: Network.HOST } as const;

type RunInit = MessageInitShape<typeof RunContainerRequestSchema>;

/** What the flags say of a request, but for image and command. Throws CliError `usage` for a file that cannot be taken. */
export function containerRequest(
  flags: ContainerFlags & Partial<SoleContainerFlags>,
): Required<Pick<RunInit, "env" | "cpuMillis" | "memoryBytes" | "network" | "options" | "name">> {
  const files = (flags.envFile ?? []).map((path) => readEnvFile(path));
  return {
    name: flags.name ?? "",
    env: Object.assign({}, ...files, variablesOf(flags.env ?? [])),
    cpuMillis: Math.round((flags.cpu ?? 0) * 1000),
    memoryBytes: BigInt(flags.memory ?? 0),
    network: flags.network === undefined ? Network.UNSPECIFIED : networks[flags.network],
    options: create(ContainerOptionsSchema, {
      ...(flags.entrypoint === undefined
        ? {}
        : { entrypoint: { words: flags.entrypoint === "" ? [] : [flags.entrypoint] } }),
      workingDirectory: flags.workdir ?? "",
      user: flags.user ?? "",
      readOnly: flags.readOnly,
      tmpfs: [...(flags.tmpfs ?? [])],
      volumes: [...(flags.volume ?? [])],
      ports: [...(flags.publish ?? [])],
      secrets: [...(flags.secretEnv ?? []), ...(flags.secretFile ?? [])],
      pidsLimit: flags.pidsLimit ?? 0,
      storageBytes: BigInt(flags.storageLimit ?? 0),
      ...(flags.restart === undefined ? {} : { restart: flags.restart }),
      // 0 would be the default.
      stopTimeoutMs: flags.stopTimeout === undefined ? 0 : Math.max(1, Math.round(flags.stopTimeout * 1000)),
      terminal: flags.tty ?? false,
      stdin: flags.interactive ?? false,
    }),
  };
}
