import { defaultOptions } from "../container/options.ts";
import { requestVersionNow } from "../container/request-version.ts";
import type { NewWorker } from "./worker.ts";

/** A worker as it joins, for {@link WorkerIdentityStore.join}. */
export function joiningWorker(workerId: string, name = workerId) {
  return {
    workerId,
    publicKeySha256: `key of ${workerId}`,
    name,
    tokenId: crypto.randomUUID(),
    joinedFrom: "127.0.0.1",
    certificateSerial: "1",
    certificateNotAfter: new Date("2030-01-01T00:00:00Z"),
  };
}

/** A worker as it registers, for {@link SchedulerStore.register}. */
export function registeringWorker(id: string, name = id, address = "https://127.0.0.1:1"): NewWorker {
  return {
    id,
    name,
    address,
    bootPublicKey: new Uint8Array(32),
    bootNonce: "boot",
    cpuMillis: 4000,
    memoryBytes: 1e9,
    platform: "linux/amd64",
    version: "0",
    requestVersion: requestVersionNow,
  };
}

/** A container that asks for nothing, for {@link ContainerStore.create}. */
export function undemandingContainer(workspaceId: string, imageId: string) {
  return {
    workspaceId,
    imageId,
    reference: "r",
    command: [],
    env: {},
    network: "none" as const,
    options: defaultOptions,
    eager: false,
    cpuMillis: 0,
    memoryBytes: 0,
  };
}
