import { originOf } from "../../container/image-credential.ts";
import { issuedAgoMs } from "../../credential/issued.ts";
import { Lease, type LeaseTerm } from "../../credential/lease.ts";
import type { LeaseClock } from "../../credential/lease-clock.ts";
import { parseReference } from "../../reference/reference.ts";
import { unproved } from "../../registry/unproved.ts";
import { CodedError, messageOf } from "../../std/error.ts";
import { logger } from "../../std/log.ts";
import type { GrantKey } from "./grants.ts";
import {
  type AccessDependencies,
  type EventSink,
  type ImageAccess,
  type ImageUser,
  openTerm,
} from "./image-access.ts";
import { LeasedRepository } from "./leased-repository.ts";

const log = logger("worker");

export interface LeaseDependencies extends AccessDependencies {
  /**
   * The access to a container's image as it is now, asked of the scheduler once, in a time of its own.
   * @param refused the registry does not take what the container has
   * @param starting the container is yet to start: what is given is to prove access
   * @throws CredentialError, also when the container is not this worker's (any more)
   */
  readonly freshAccess: (container: ImageUser, refused: boolean, starting: boolean) => Promise<ImageAccess>;
  readonly leaseClock?: LeaseClock;
  /** How long a read waits for a scheduler that is away; less than a reader's deadline, so that it hears why. */
  readonly leasePatienceMs?: number;
}

/** One container's lease on its image: what the registry gives it, for as long as it lives. */
export class ImageLease {
  /** The image's bytes. */
  readonly source: LeasedRepository;
  readonly #dependencies: LeaseDependencies;
  readonly #user: ImageUser;
  readonly #onEvent: EventSink;
  readonly #lease: Lease;
  #access: ImageAccess | undefined;
  /** When what is here was got with the credential itself. */
  #provedAtMs: number;
  #starting: boolean;

  private constructor(
    dependencies: LeaseDependencies,
    user: ImageUser,
    onEvent: EventSink,
    keptUp: () => boolean,
    first: { readonly access: ImageAccess; readonly term: LeaseTerm | undefined } | undefined,
  ) {
    this.#dependencies = dependencies;
    this.#user = user;
    this.#onEvent = onEvent;
    this.#access = first?.access;
    this.#starting = first !== undefined;
    this.#provedAtMs = dependencies.grants.now() - (first?.access.provedAgoMs ?? 0);
    this.#lease = new Lease({
      first: first?.term,
      ask: (refused) => this.#ask(refused),
      keptUp,
      onFailure: (thrown) => this.#failed(thrown),
      ...(dependencies.leasePatienceMs === undefined ? {} : { patienceMs: dependencies.leasePatienceMs }),
      ...(dependencies.leaseClock === undefined ? {} : { clock: dependencies.leaseClock }),
    });
    this.source = new LeasedRepository(
      this.#lease,
      () => this.#repository(),
      (repository) => dependencies.registry.forget(repository),
    );
  }

  /**
   * The lease of a container that was handed over, by what its request holds.
   * @param keptUp whether something is still to be fetched: then it is renewed before anybody needs it
   * @throws SecretError, CredentialError
   */
  static async open(
    dependencies: LeaseDependencies,
    user: ImageUser,
    access: ImageAccess,
    onEvent: EventSink,
    keptUp: () => boolean,
  ): Promise<ImageLease> {
    const term = isDeferred(access) ? undefined : await openTerm(dependencies, access);
    if (term !== undefined) tellFirst(access, term, onEvent);
    return new ImageLease(dependencies, user, onEvent, keptUp, { access, term });
  }

  /** The lease of a container that is here already: the first request asks for what is right now. */
  static resume(
    dependencies: LeaseDependencies,
    user: ImageUser,
    onEvent: EventSink,
    keptUp: () => boolean,
  ): ImageLease {
    return new ImageLease(dependencies, user, onEvent, keptUp, undefined);
  }

  /**
   * Resolves when the registry says that the container may have the image, or said so a while ago.
   *
   * @throws RegistryError, CredentialError, also when nobody can be asked, and nothing counts that was said before
   */
  async prove(signal: AbortSignal): Promise<void> {
    const { grants } = this.#dependencies;
    const access = this.#access;
    if (access === undefined) await this.#head(signal);
    else if (access.accessProved === true) grants.give(this.#grant(access), access.provedAgoMs ?? 0);
    else await this.#proveBy(access, signal);
    this.#starting = false;
  }

  async #proveBy(access: ImageAccess, signal: AbortSignal): Promise<void> {
    const { grants } = this.#dependencies;
    const { grantLifeMs: lifeMs = 0 } = access;
    const key = this.#grant(access);
    try {
      await grants.prove(key, lifeMs, async () => {
        await this.#renewOld(lifeMs, signal);
        await this.#head(signal);
        return grants.now() - this.#provedAtMs;
      });
    } catch (thrown) {
      signal.throwIfAborted();
      const agoMs = grants.agoMs(key);
      throw unproved(
        thrown,
        parseReference(access.imageReference),
        agoMs === undefined ? undefined : { agoMs, lifeMs },
      );
    }
  }

  /** What an issuer gave for the credential itself some time ago lives on when that is revoked: it proves nothing. */
  async #renewOld(lifeMs: number, signal: AbortSignal): Promise<void> {
    const { grants } = this.#dependencies;
    const delivery = this.#access?.credential?.delivery;
    const provider = this.#lease.term?.provider;
    if (delivery === "minted") return;
    this.#provedAtMs = grants.now();
    if (provider?.renewable !== true) return;
    const agoMs = issuedAgoMs(await provider.authorization(signal)) ?? Number.POSITIVE_INFINITY;
    if (agoMs < lifeMs) {
      this.#provedAtMs -= agoMs;
      return;
    }
    this.#provedAtMs = grants.now();
    await provider.authorization(signal, { refresh: true });
    this.source.reopen();
  }

  async #head(signal: AbortSignal): Promise<void> {
    await this.source.use((repository) => repository.headManifest(this.#user.manifestDigest, signal), signal);
  }

  /** The image is mounted: what is missing of it will be read, and the scheduler may be away by then. */
  warm(): void {
    this.#lease.warm();
  }

  /** The container has ended. */
  end(): void {
    this.#lease.end();
    this.source.reopen();
  }

  #repository() {
    const reference = parseReference(this.#access?.imageReference ?? "");
    return this.#dependencies.registry.repository(reference, this.#lease.provider(reference.registry));
  }

  #grant({ imageReference, credential }: ImageAccess): GrantKey {
    const { workspaceId, manifestDigest } = this.#user;
    const { registry, repository } = parseReference(imageReference);
    const { secretId = "", secretVersion = 0, identity = "" } = credential ?? {};
    return {
      workspaceId,
      repository: `${registry}/${repository}`,
      manifestDigest,
      // However it came here: it is the same one that proves.
      credential: JSON.stringify([secretId, secretVersion, identity]),
    };
  }

  async #ask(refused: boolean): Promise<LeaseTerm> {
    const before = this.#access;
    if (refused && before !== undefined) this.#dependencies.grants.forget(this.#grant(before));
    const access = await this.#dependencies.freshAccess(this.#user, refused, this.#starting);
    const term = await openTerm(this.#dependencies, access);
    this.#access = access;
    this.#provedAtMs = this.#dependencies.grants.now() - (access.provedAgoMs ?? 0);
    this.#began(before, access, refused);
    return term;
  }

  #began(before: ImageAccess | undefined, access: ImageAccess, refused: boolean): void {
    const { credential } = access;
    const { containerId: container, manifestDigest } = this.#user;
    const about = { container, manifestDigest, delivery: credential?.delivery };
    const another = before !== undefined && !isAlike(before, access);
    const level = refused || another || before === undefined ? "info" : "debug";
    log[level]("going on with the image's credentials as they are now", about);
    if (!another) return;
    this.source.reopen();
    if (credential !== undefined && credential.delivery !== "none")
      this.#onEvent("credential", `going on with ${originOf(credential)} (${credential.delivery})`);
  }

  #failed(thrown: unknown): void {
    const { containerId: container, manifestDigest } = this.#user;
    log.warn("no new credentials for an image", { container, manifestDigest, error: messageOf(thrown) });
    const next = thrown instanceof CodedError && thrown.next !== undefined ? `. ${thrown.next}` : "";
    this.#onEvent("credential", `no new credential for the image: ${messageOf(thrown)}${next}`);
  }
}

/** Whether nothing was made yet, as the image is known here: it is asked for when it is needed. */
function isDeferred({ sealedCredentials, credential }: ImageAccess): boolean {
  return sealedCredentials === "" && credential?.delivery === "minted";
}

/** Whether what was agreed with the registry by one counts for the other. */
function isAlike(one: ImageAccess, other: ImageAccess): boolean {
  const facts = ({ credential: of }: ImageAccess) =>
    JSON.stringify([of?.delivery, of?.secretId, of?.secretVersion, of?.identity]);
  return facts(one) === facts(other);
}

function tellFirst(access: ImageAccess, { provider }: LeaseTerm, onEvent: EventSink): void {
  const { absentReason, credential, containerId: container } = access;
  const { registry, type } = provider;
  if (access.sealedCredentials === "") {
    if (absentReason === "") return;
    onEvent("credential", `${absentReason}: going on without credentials`);
    log.warn("the request's credentials are missing: going on without", {
      container,
      registry,
      reason: absentReason,
    });
    return;
  }
  const minted = credential?.delivery === "minted";
  onEvent(
    "credential",
    minted
      ? `reads from ${registry} with a short-lived authorization: ${credential.scope ?? ""}`
      : `reads from ${registry} with the ${type} credential itself`,
  );
  log.info("using credential provider from request for OCI image mount", {
    container,
    registry,
    type: credential?.type ?? type,
    delivery: credential?.delivery ?? "sealed",
  });
}
