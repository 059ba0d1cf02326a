import type { Container } from "../container/container.ts";
import { ContainerError } from "../container/error.ts";
import { describeImageCredential } from "../container/image-credential.ts";
import { requestVersionOf } from "../container/request-version.ts";
import type { ContainerStore } from "../container/store.ts";
import type { WorkerClients } from "../container/worker-client.ts";
import { CredentialError } from "../credential/error.ts";
import type { Image } from "../image/image.ts";
import type { ImageStore } from "../image/store.ts";
import { RegistryError } from "../registry/error.ts";
import { SecretError } from "../secret/error.ts";
import { type CodedError, messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { type AttachDependencies, type AttachedCredentials, attachCredentials } from "./attach.ts";
import { attachSecrets } from "./attach-secrets.ts";
import { type AttachedAll, announce, type HandOverFailure, handOver, retract } from "./hand-over-client.ts";
import { place } from "./place.ts";
import { placedVolumes } from "./placed-volumes.ts";
import type { SchedulerStore } from "./store.ts";
import { isCertified, type Worker } from "./worker.ts";

const log = logger("scheduler");
const claimCount = 16;
const claimLeaseMs = 30_000;
const confirmLeaseMs = 30_000;
const retryInMs = 1_000;
const suspectMs = 5_000;
/** What waits is looked at every second: of what was not seen for so long nothing need be known. */
const waitKeptMs = 60_000;
const attemptsMax = 5;
const announcedAfterMs = 5;
/** Hand-overs at once: more wait, as they hold what they have read. */
const handOversMax = 128;

export interface DispatcherDependencies extends AttachDependencies {
  readonly schedulerId: string;
  readonly store: SchedulerStore;
  readonly containers: ContainerStore;
  readonly images: ImageStore;
  readonly workers: WorkerClients;
  /** What its workers' own configuration calls a workspace. */
  readonly workspaceNameOf: (workspaceId: string) => Promise<string>;
}

/** Takes queued containers, chooses a worker for each, and hands them over with their credentials. */
export class Dispatcher {
  readonly #dependencies: DispatcherDependencies;
  /** Workers that just did not answer, and until when they are passed over. */
  readonly #suspects = new Map<string, number>();
  /** Images that were handed to a worker's boot: it has them, at least in part, in its cache. */
  readonly #warm = new Map<string, Set<string>>();
  /** Hand-overs that run, and whose. A registry or a worker that is slow keeps nobody else's container. */
  readonly #handOvers = new Map<Promise<void>, string>();
  /** Containers that wait, what for, and when that was seen last. */
  readonly #waits = new Map<string, { readonly reason: string; readonly at: number }>();
  readonly #closing = new AbortController();

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

  /** Resolves when no hand-over runs. */
  async idle(): Promise<void> {
    await Promise.all(this.#handOvers.keys());
  }

  /** Waits for no registry any more, and for workers that have been asked. Who is left is handed over by another scheduler. */
  async close(): Promise<void> {
    this.#closing.abort(new Error("this scheduler is ending"));
    await this.idle();
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
    if (this.#hasItsShare(container.workspaceId)) {
      await store.releaseClaim(container.id, schedulerId, retryInMs);
      return;
    }
    const image = await images.get(container.workspaceId, container.imageId);
    const known = await store.workers();
    const workers = known.filter((worker) => this.#isReady(worker));
    const placement = place(
      {
        cpuMillis: container.cpuMillis,
        memoryBytes: container.memoryBytes,
        platform: image.platform,
        manifestDigest: image.manifestDigest,
        volumes: await placedVolumes(store, container, known),
        requestVersion: requestVersionOf(container),
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
      await this.#tellWait(container, placement.reason);
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
    await this.#begin(placed.container, image, worker);
  }

  /** Once per reason: whoever waits for a container shall know what it waits for. */
  async #tellWait(container: Container, reason: string): Promise<void> {
    const now = Date.now();
    for (const [id, { at }] of this.#waits) if (now - at > waitKeptMs) this.#waits.delete(id);
    const told = this.#waits.get(container.id)?.reason === reason;
    this.#waits.set(container.id, { reason, at: now });
    if (told) return;
    const events = [{ kind: "queue", message: `waits: ${reason}`, fields: {} }];
    await this.#dependencies.containers.observe(container.id, { attempt: container.attempt }, { events });
  }

  /** A hand-over whose end nobody saw: again to the same worker, which knows whether it has it already. */
  async #confirm(container: Container): Promise<void> {
    const { store, images } = this.#dependencies;
    const worker = container.workerId === undefined ? undefined : await store.worker(container.workerId);
    if (worker === undefined || !this.#isReady(worker)) {
      await this.#putBack(container, "its worker did not take it up");
      return;
    }
    if (worker.requestVersion < requestVersionOf(container)) {
      await this.#putBack(container, `its worker ${worker.name} is of an earlier version by now`);
      return;
    }
    await this.#begin(container, await images.get(container.workspaceId, container.imageId), worker);
  }

  /** Hands over beside the round; it is seen again in a later one if nobody sees its end. */
  async #begin(container: Container, image: Image, worker: Worker): Promise<void> {
    while (this.#handOvers.size >= handOversMax) await Promise.race(this.#handOvers.keys());
    const running = this.#guarded(container, () => this.#handOver(container, image, worker));
    this.#handOvers.set(running, container.workspaceId);
    void running.then(() => this.#handOvers.delete(running));
  }

  /** Whether a workspace has more of the hand-overs than it leaves to others: its registries may all be silent. */
  #hasItsShare(workspaceId: string): boolean {
    const own = [...this.#handOvers.values()].filter((id) => id === workspaceId).length;
    return own >= handOversMax - this.#handOvers.size;
  }

  async #handOver(container: Container, image: Image, worker: Worker): Promise<void> {
    let attached: AttachedCredentials;
    let sealedSecrets: string;
    const secrets = attachSecrets(this.#dependencies, container, worker);
    // What is at hand is there by then. Else its worker mounts the image while somebody is asked.
    const client = this.#dependencies.workers.to(worker);
    let announced: Promise<void> | undefined;
    const hint = setTimeout(() => {
      announced = announce(client, container, image);
    }, announcedAfterMs);
    try {
      const { signal } = this.#closing;
      const known = this.#warm.get(bootOf(worker))?.has(image.manifestDigest) === true;
      attached = await attachCredentials(this.#dependencies, container, image, worker, { known, signal });
      sealedSecrets = await secrets(attached);
    } catch (error) {
      // Else the worker would be told of it while the failure is written down.
      clearTimeout(hint);
      if (!isAnswer(error)) throw error;
      // Not before it was heard: else what is taken back might be begun after that.
      void announced?.then(() => retract(client, container));
      await this.#leave(container, "failed", reasonOf(error));
      return;
    } finally {
      clearTimeout(hint);
    }
    const failure = await this.#send(container, image, worker, { ...attached, sealedSecrets });
    if (failure !== undefined) {
      this.#suspects.set(worker.id, Date.now() + suspectMs);
      await this.#putBack(container, `worker ${worker.name} did not take it: ${failure.message}`);
      return;
    }
    const boot = bootOf(worker);
    this.#warm.set(boot, (this.#warm.get(boot) ?? new Set()).add(image.manifestDigest));
  }

  /** Hands over, and then writes down what was: the worker's first report must not wait for that at the row. */
  async #send(
    container: Container,
    image: Image,
    worker: Worker,
    attached: AttachedAll,
  ): Promise<HandOverFailure | undefined> {
    const { containers, store, workers, workspaceNameOf } = this.#dependencies;
    const { credential, absentReason } = attached;
    const { secretName: secret, secretVersion, identity, delivery, validUntil } = credential;
    const told = {
      kind: "credential",
      message: [absentReason, ...(delivery === "none" ? [] : [describeImageCredential(credential)])]
        .filter((part) => part !== "")
        .join(": "),
      fields: {
        delivery,
        ...(secret === undefined ? {} : { secret, version: String(secretVersion) }),
        ...(identity === undefined ? {} : { identity }),
        ...(validUntil === undefined ? {} : { validUntil: validUntil.toISOString() }),
      },
    };
    const events = delivery === "none" && absentReason === "" ? [] : [told];
    const expected = { attempt: container.attempt, workerId: worker.id };
    // It may have been revoked, or started again, while the credential was being asked for.
    if (!(await store.takes(worker.id, worker.bootNonce)))
      return { message: "it counts no more, or has started again" };
    const workspaceName = await workspaceNameOf(container.workspaceId);
    const failure = await handOver(workers.to(worker), container, image, attached, workspaceName);
    if (failure !== undefined) return failure;
    const seen = { imageCredential: credential, events };
    await containers.observe(container.id, expected, seen).catch(passOverIfGone);
    return undefined;
  }

  async #putBack(container: Container, reason: string): Promise<void> {
    log.warn("container put back into the queue", { container: container.id, reason });
    await this.#leave(container, container.attempt >= attemptsMax ? "failed" : "pending", reason);
  }

  async #leave(container: Container, to: "failed" | "pending", reason: string): Promise<void> {
    const { containers } = this.#dependencies;
    const expected = { from: ["scheduled" as const], attempt: container.attempt };
    // It began after all, or ended: then there is nothing to leave.
    await containers.transition(container.id, expected, to, { reason }).catch(passOverIfGone);
  }

  #isReady(worker: Worker): boolean {
    return (
      worker.state === "ready" && isCertified(worker) && (this.#suspects.get(worker.id) ?? 0) < Date.now()
    );
  }
}

function bootOf(worker: Worker): string {
  return `${worker.id} ${worker.bootNonce}`;
}

/** What the run is told by name; anything else is tried again. A key service that says nothing is for its users to see. */
function isAnswer(error: unknown): error is RegistryError | CredentialError | SecretError {
  return error instanceof RegistryError || error instanceof CredentialError || error instanceof SecretError;
}

function reasonOf({ message, next }: CodedError): string {
  return next === undefined ? message : `${message}. ${next}`;
}

/** Another has the container by now, or it is somewhere else on its way. */
function passOverIfGone(error: unknown): void {
  if (!(error instanceof ContainerError)) throw error;
}
