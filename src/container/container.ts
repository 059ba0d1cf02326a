import { randomBytes } from "node:crypto";
import type { ImageCredential } from "./image-credential.ts";
import type {
  ContainerNetwork,
  ContainerOptions,
  ContainerServing,
  Handler,
  PublishedPort,
} from "./options.ts";
import type { ContainerState } from "./state.ts";

export type { ContainerNetwork } from "./options.ts";

/** What the user asked for beside the image and the resources. */
export interface ContainerSpec {
  /** Replaces the image's Cmd; empty: the image's. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly network: ContainerNetwork;
  /** Waits for the whole image before the start. */
  readonly eager: boolean;
  readonly options: ContainerOptions;
  /** The program is this function, in a runner. */
  readonly handler?: Handler | undefined;
  /** Of an endpoint's containers. */
  readonly serving?: ContainerServing | undefined;
}

export interface NewContainer extends ContainerSpec {
  readonly workspaceId: string;
  readonly imageId: string;
  /** The image as the user named it, shown back to him. */
  readonly reference: string;
  /** Thousandths of a CPU; 0: no limit. */
  readonly cpuMillis: number;
  /** 0: no limit. */
  readonly memoryBytes: number;
  /** No other container of the workspace has it. */
  readonly name?: string | undefined;
  /** The deployment of an endpoint that it is of. */
  readonly deploymentId?: string | undefined;
}

/** What the worker has fetched of the image. */
export interface ImageTransfer {
  readonly fetchedBytes: number;
  readonly requests: number;
  readonly compressedBytes: number;
  readonly spansPresent: number;
  readonly spansTotal: number;
  /** Whether every byte of the image is on the worker. */
  readonly complete: boolean;
}

/** When a container reached a phase: name → time. A phase keeps its first time within an attempt. */
export type Phases = Readonly<Record<string, Date>>;

export interface Container extends NewContainer {
  readonly id: string;
  readonly state: ContainerState;
  /** Counts from 1; one more each time that it is put back into the queue. */
  readonly attempt: number;
  readonly workerId: string | undefined;
  readonly exitCode: number | undefined;
  /** The signal that ended the process, such as `SIGKILL`. */
  readonly signal: string | undefined;
  readonly oomKilled: boolean;
  /** Why it failed or was ended, one sentence. */
  readonly reason: string | undefined;
  readonly phases: Phases;
  readonly transfer: ImageTransfer | undefined;
  /** How its image's credential reached the worker of this attempt; absent until it has. */
  readonly imageCredential: ImageCredential | undefined;
  /** Its own IP address, once its worker gave it one. */
  readonly address: string | undefined;
  /** What is published, with the host's ports that were taken. */
  readonly ports: readonly PublishedPort[];
  /** How often its worker started the program again. */
  readonly restarts: number;
  /** Its port answered. */
  readonly readyAt: Date | undefined;
  /** It gets no requests any more and is to end. */
  readonly drainingAt: Date | undefined;
  readonly claimedBy: string | undefined;
  readonly leaseUntil: Date | undefined;
  readonly createdAt: Date;
  readonly startedAt: Date | undefined;
  readonly finishedAt: Date | undefined;
  readonly updatedAt: Date;
}

/** Something that happened to a container. Fields and message must hold no credential. */
export interface NewContainerEvent {
  /** Now when absent. */
  readonly at?: Date | undefined;
  /** `state`, `credential`, `mount`, … */
  readonly kind: string;
  readonly message: string;
  readonly fields?: Readonly<Record<string, string>> | undefined;
}

/** Of the event that a container was ended because its worker did not have it any more. */
export const lostEventKind = "lost";

export interface ContainerEvent {
  /** Grows; events of a container are in this order. */
  readonly id: number;
  readonly containerId: string;
  readonly at: Date;
  readonly kind: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, string>>;
}

/** A new container's id: `c-` and 16 hex digits, fit for a runtime's container name and a folder's. */
export function newContainerId(): string {
  return `c-${randomBytes(8).toString("hex")}`;
}
