import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import type { Container } from "../container/container.ts";
import { ContainerError } from "../container/error.ts";
import type { ContainerStore } from "../container/store.ts";
import { toWireNetwork } from "../container/wire-service.ts";
import type { WorkerClients } from "../container/worker-client.ts";
import { type Image, referenceOf } from "../image/image.ts";
import type { ImageStore } from "../image/store.ts";
import type { Vault } from "../secret/vault.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { attachCredentials } from "./attach.ts";
import { place } from "./place.ts";
import type { SchedulerStore } from "./store.ts";
import type { Worker } from "./worker.ts";

const log = logger("scheduler");
const claimCount = 16;
const claimLeaseMs = 30_000;
const confirmLeaseMs = 30_000;
const handOverTimeoutMs = 10_000;
const retryInMs = 1_000;
const suspectMs = 5_000;
const attemptsMax = 5;

export interface DispatcherDependencies {
  readonly schedulerId: string;
  readonly store: SchedulerStore;
  readonly containers: ContainerStore;
  readonly images: ImageStore;
  readonly vault: Vault;
  readonly workers: WorkerClients;
}

/** Takes queued containers, chooses a worker for each, and hands them over with their credentials. */
export class Dispatcher {
  readonly #dependencies: DispatcherDependencies;
  /** Workers that just did not answer, and until when they are passed over. */
  readonly #suspects = new Map<string, number>();
  /** Images that were handed to a worker's boot: it has them, at least in part, in its cache. */
  readonly #warm = new Map<string, Set<string>>();

  constructor(dependencies: DispatcherDependencies) {
    this.#dependencies = dependencies;
  }

  /** One round over the queue. Returns true when there may be more at once. */
  async round(): Promise<boolean> {
    const { store, schedulerId } = this.#dependencies;
    const unconfirmed = await store.claimUnconfirmed(claimCount, schedulerId, claimLeaseMs);
    const pending = await store.claimPending(claimCount, schedulerId, claimLeaseMs);
    await Promise.all([
      ...unconfirmed.map((container) => this.#guarded(container, () => this.#confirm(container))),
      ...pending.map((container) => this.#guarded(container, () => this.#schedule(container))),
    ]);
    return pending.length === claimCount;
  }

  /** A failure with one container must not keep the others; its claim lapses and it is tried again. */
  async #guarded(container: Container, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      log.error("a container could not be scheduled now", {
        container: container.id,
        error: messageOf(error),
      });
    }
  }

  async #schedule(container: Container): Promise<void> {
    const { store, containers, images, schedulerId } = this.#dependencies;
    const image = await images.get(container.workspaceId, container.imageId);
    const workers = (await store.workers()).filter((worker) => this.#isReady(worker));
    const placement = place(
      {
        cpuMillis: container.cpuMillis,
        memoryBytes: container.memoryBytes,
        platform: image.platform,
        manifestDigest: image.manifestDigest,
      },
      workers.map((worker) => ({
        ...worker,
        cpuMillisUsed: worker.cpuMillisPlaced,
        memoryBytesUsed: worker.memoryBytesPlaced,
        manifestDigests: this.#warm.get(bootOf(worker)) ?? new Set(),
      })),
    );
    if (placement.kind === "impossible") {
      await containers.transition(container.id, { from: ["pending"] }, "failed", {
        reason: placement.reason,
      });
      return;
    }
    if (placement.kind === "wait") {
      await store.releaseClaim(container.id, schedulerId, retryInMs);
      return;
    }
    const placed = await store.place(container, placement.workerId, confirmLeaseMs);
    const worker = workers.find(({ id }) => id === placement.workerId);
    if (placed === undefined || worker === undefined) {
      await store.releaseClaim(container.id, schedulerId, retryInMs);
      return;
    }
    log.info("container scheduled", {
      container: container.id,
      worker: worker.id,
      attempt: placed.container.attempt,
    });
    await this.#handOver(placed.container, image, worker);
  }

  /** A hand-over whose end nobody saw: again to the same worker, which knows whether it has it already. */
  async #confirm(container: Container): Promise<void> {
    const { store, images } = this.#dependencies;
    const worker = container.workerId === undefined ? undefined : await store.worker(container.workerId);
    if (worker === undefined || !this.#isReady(worker)) {
      await this.#putBack(container, "its worker did not take it up");
      return;
    }
    await this.#handOver(container, await images.get(container.workspaceId, container.imageId), worker);
  }

  async #handOver(container: Container, image: Image, worker: Worker): Promise<void> {
    const attached = await attachCredentials(this.#dependencies, container, worker);
    try {
      await this.#dependencies.workers.to(worker).startContainer(
        {
          request: {
            containerId: container.id,
            attempt: container.attempt,
            workspaceId: container.workspaceId,
            imageId: image.id,
            imageReference: referenceOf(image),
            manifestDigest: image.manifestDigest,
            indexSha256: image.indexSha256 ?? "",
            imageCredentials: attached.sealed,
            requestId: attached.requestId,
            credentialsExpireAt: timestampFromDate(attached.expiresAt),
            credentialsAbsentReason: attached.absentReason,
            command: [...container.command],
            env: { ...container.env },
            cpuMillis: container.cpuMillis,
            memoryBytes: BigInt(container.memoryBytes),
            network: toWireNetwork(container.network),
            eager: container.eager,
          },
        },
        { timeoutMs: handOverTimeoutMs },
      );
    } catch (error) {
      this.#suspects.set(worker.id, Date.now() + suspectMs);
      await this.#putBack(
        container,
        `worker ${worker.name} did not take it: ${ConnectError.from(error).rawMessage}`,
      );
      return;
    }
    const boot = bootOf(worker);
    this.#warm.set(boot, (this.#warm.get(boot) ?? new Set()).add(image.manifestDigest));
  }

  async #putBack(container: Container, reason: string): Promise<void> {
    log.warn("container put back into the queue", { container: container.id, reason });
    const to = container.attempt >= attemptsMax ? "failed" : "pending";
    try {
      await this.#dependencies.containers.transition(
        container.id,
        { from: ["scheduled"], attempt: container.attempt },
        to,
        { reason },
      );
    } catch (error) {
      // It began after all, or ended: then there is nothing to put back.
      if (!(error instanceof ContainerError)) throw error;
    }
  }

  #isReady(worker: Worker): boolean {
    return worker.state === "ready" && (this.#suspects.get(worker.id) ?? 0) < Date.now();
  }
}

function bootOf(worker: Worker): string {
  return `${worker.id} ${worker.bootNonce}`;
}
