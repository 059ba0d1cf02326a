/** `private`: an address of its own, others through the host (NAT). `none`: loopback only. */
export type ContainerNetwork = "none" | "host" | "private";

/** A file system in memory. */
export interface Tmpfs {
  readonly path: string;
  readonly sizeBytes: number;
  /** Permission bits. */
  readonly mode: number;
}

export interface VolumeMount {
  /** An absolute path of the host, or a volume's name. */
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

/** A port of the worker's host that leads to one of the container. */
export interface PublishedPort {
  readonly hostAddress: string;
  /** 0: any free one. */
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp";
}

/** A secret of the workspace as a variable or as a file: exactly one of the two. */
export interface SecretUse {
  readonly secretName: string;
  readonly variable?: string | undefined;
  readonly path?: string | undefined;
}

export interface RestartPolicy {
  readonly kind: "no" | "on-failure" | "always";
  /** Of `on-failure`; 0: without end. */
  readonly retriesMax: number;
}

/** What containers are run with beside image, command and resources. What is not set is the image's, or the operator's default. */
export interface ContainerOptions {
  /** Replaces the image's Entrypoint; no words: none. Absent: the image's. */
  readonly entrypoint?: readonly string[] | undefined;
  /** Absolute; empty: the image's. */
  readonly workingDirectory: string;
  /** As an image's `User`; empty: the image's. */
  readonly user: string;
  readonly readOnly: boolean;
  readonly tmpfs: readonly Tmpfs[];
  readonly volumes: readonly VolumeMount[];
  readonly ports: readonly PublishedPort[];
  readonly secrets: readonly SecretUse[];
  /** 0: the runtime's default. */
  readonly pidsLimit: number;
  /** Of the writable layer; 0: the operator's limit. */
  readonly storageBytes: number;
  readonly restart: RestartPolicy;
  /** Between the stop signal and SIGKILL, where a stop names no other time; 0: the default. */
  readonly stopTimeoutMs: number;
  readonly terminal: boolean;
  /** Standard input stays open and can be attached to. */
  readonly stdin: boolean;
}

/** A function of uploaded code, served over HTTP by a runner in the image's own Python. */
export interface Handler {
  readonly codeSha256: string;
  /** `module:function`. */
  readonly name: string;
  /** Calls at once. */
  readonly concurrency: number;
}

/** Where a container of an endpoint serves HTTP. */
export interface ContainerServing {
  readonly port: number;
  /** How long the program may take until the port answers. */
  readonly startupTimeoutMs: number;
  /** Requests at once. */
  readonly concurrency: number;
}

export const defaultOptions: ContainerOptions = {
  workingDirectory: "",
  user: "",
  readOnly: false,
  tmpfs: [],
  volumes: [],
  ports: [],
  secrets: [],
  pidsLimit: 0,
  storageBytes: 0,
  restart: { kind: "no", retriesMax: 0 },
  stopTimeoutMs: 0,
  terminal: false,
  stdin: false,
};

export const tmpfsSizeBytesDefault = 64 * 1024 * 1024;
export const tmpfsModeDefault = 0o1777;
