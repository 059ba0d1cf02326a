import { randomUUID } from "node:crypto";
import { messageOf } from "../std/error.ts";
import { waitFor } from "../std/wait.ts";
import { CredentialError } from "./error.ts";
import type { LeaseClock } from "./lease-clock.ts";
import { systemLeaseClock } from "./lease-clock.ts";
import type { CredentialProvider, RegistryAuthorization } from "./provider.ts";

/** What a lease has until the next. Spans of time, not points: the clocks of two machines need not agree. */
export interface LeaseTerm {
  /** What was minted, or the credential itself, whose issuer this process then asks by itself. */
  readonly provider: CredentialProvider;
  /** How long it is good, in milliseconds; absent: no end is known, and it is asked anew only when it is refused. */
  readonly validForMs?: number;
  /** When the next one is asked for; default: after half of its life. */
  readonly renewInMs?: number;
  /** Why it is nothing although there was to be something, one sentence. */
  readonly absentReason?: string;
}

export interface LeaseOptions {
  /** Absent: the first request asks for it. */
  readonly first?: LeaseTerm | undefined;
  /**
   * Gets the next term, in a time of its own. A CredentialError is an answer, which the next try would hear again, unless
   * it is `provider_unreachable`; everything else that it throws may be over soon.
   * @param refused the registry does not take the present one
   */
  readonly ask: (refused: boolean) => Promise<LeaseTerm>;
  /** Whether terms are renewed while nobody asks for them. */
  readonly keptUp: () => boolean;
  /** A term has begun. @param refused whether it takes the place of one that the registry refused */
  readonly onTerm?: (term: LeaseTerm, refused: boolean) => void;
  /** The first failure in a row, and each answer that is another than the one before. */
  readonly onFailure?: (thrown: unknown) => void;
  readonly clock?: LeaseClock;
  /** How long a request waits for a term when there is none; default 20 s, less than a reader's patience. */
  readonly patienceMs?: number;
}

/** Between two questions because of a refusal: who is refused must not ask at every read. */
const refusalPauseMs = 10_000;
/**
 * A term counts as good for so long from when we hear of it, whatever is said of it: a token service that gives none a life, or
 * takes longer than that to answer, must not keep us busy.
 */
const leastLifeMs = 2_000;
const firstRetryMs = 500;
/** While nobody waits, and a good part of a term is left, failures are tried again less often than when somebody does. */
const longestRetryMs = 5_000;
const longestPauseMs = 60_000;
const defaultPatienceMs = 20_000;
/**
 * Renewals come up to so much before half of a life: what was given at one time is not renewed at one time, and there is
 * half of a life left for a scheduler that is away.
 */
const jitter = 0.05;

/**
 * What one running container has of its image's credential: valid until T, renewed after half of that, with one exchange
 * however many wait. The old term serves until its true end; failures are tried again, with pauses that grow. It ends with
 * its container, and gives out nothing from then on.
 */
export class Lease {
  readonly #options: LeaseOptions;
  readonly #clock: LeaseClock;
  #term: LeaseTerm | undefined;
  #endsAtMs = Number.NEGATIVE_INFINITY;
  #renewAtMs = Number.NEGATIVE_INFINITY;
  #hadCredential = false;
  #refused = false;
  /** Not before these times a refusal is a reason to ask the issuer, or for another term. */
  #reissuesFromMs = Number.NEGATIVE_INFINITY;
  #refusalsFromMs = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> | undefined;
  #failure: unknown;
  #failures = 0;
  #notBeforeMs = Number.NEGATIVE_INFINITY;
  #cancelTimer: (() => void) | undefined;
  readonly #ended = new AbortController();

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemLeaseClock;
    if (options.first !== undefined) this.#begin(options.first, this.#clock.now());
  }

  /** What there is now, good or not. */
  get term(): LeaseTerm | undefined {
    return this.#term;
  }

  /** The lease as the credential of a registry, under a fingerprint of its own: what others agreed does not count. */
  provider(registry: string): CredentialProvider {
    const type = () => this.#term?.provider.type ?? "public";
    return {
      registry,
      get type() {
        return type();
      },
      fingerprint: `lease-${randomUUID()}`,
      renewable: true,
      authorization: (signal, options) => this.authorization(signal, options?.refresh === true),
    };
  }

  /**
   * What to send now; waits where there is nothing that is good.
   * @param refused the registry refused the last one
   * @throws CredentialError when the lease has ended or the image's secret is gone; what `ask` throws
   */
  async authorization(signal?: AbortSignal, refused = false): Promise<RegistryAuthorization> {
    this.#ended.signal.throwIfAborted();
    const own = refused ? this.#reissuing() : undefined;
    const reissued = own && (await reissue(own, signal));
    if (reissued !== undefined) return reissued;
    // Marked before anything is waited for: whoever comes now must not be given it any more.
    if (refused && this.#clock.now() >= this.#refusalsFromMs) this.#refused = true;
    const term = this.#good() ?? (await this.#next(signal));
    if (this.#clock.now() >= this.#renewAtMs) void this.#renew().catch(() => undefined);
    if (refused && term.absentReason !== undefined)
      throw gone(`${term.provider.registry} wants a credential, but ${term.absentReason}`);
    return await term.provider.authorization(signal);
  }

  /** The credential itself, where it has an issuer that was not asked because of a refusal just now. */
  #reissuing(): CredentialProvider | undefined {
    const provider = this.#good()?.provider;
    if (provider?.renewable !== true || this.#clock.now() < this.#reissuesFromMs) return undefined;
    this.#reissuesFromMs = this.#clock.now() + refusalPauseMs;
    return provider;
  }

  /** Gets the first term where there is none yet and something is to be fetched, so that nobody has to wait for it. */
  warm(): void {
    if (this.#term === undefined && this.#options.keptUp()) void this.#renew().catch(() => undefined);
  }

  /** Its container has ended. */
  end(): void {
    this.#cancelTimer?.();
    this.#term = undefined;
    this.#ended.abort(
      new CredentialError("expired", "the container has ended, and its image's credential with it", {
        next: "Run it again.",
      }),
    );
  }

  #good(): LeaseTerm | undefined {
    return this.#refused || this.#clock.now() >= this.#endsAtMs ? undefined : this.#term;
  }

  /** Waits for a term, for as long as there is patience: then the last failure is the answer. */
  async #next(signal: AbortSignal | undefined): Promise<LeaseTerm> {
    const patience = new AbortController();
    const cancel = this.#clock.later(this.#options.patienceMs ?? defaultPatienceMs, () =>
      patience.abort(this.#failure ?? nobodyAnswers()),
    );
    const leaving = [this.#ended.signal, patience.signal, ...(signal === undefined ? [] : [signal])];
    const left = AbortSignal.any(leaving);
    try {
      for (;;) {
        const failed = await waitFor(this.#renew(), left).then(
          () => undefined,
          (thrown: unknown) => ({ thrown }),
        );
        const doubted = patience.signal.aborted ? this.#doubted() : undefined;
        if (doubted !== undefined) return doubted;
        left.throwIfAborted();
        if (failed !== undefined && isAnswer(failed.thrown)) throw failed.thrown;
        const term = this.#good();
        if (term !== undefined) return term;
      }
    } finally {
      cancel();
    }
  }

  /**
   * What was refused before its end, where nobody can be asked for another: registries refuse by mistake at times, and it
   * may well serve until its end. When it is refused again, that is the reader's answer.
   */
  #doubted(): LeaseTerm | undefined {
    const now = this.#clock.now();
    if (this.#ended.signal.aborted || now >= this.#endsAtMs) return undefined;
    this.#refused = false;
    this.#refusalsFromMs = now + refusalPauseMs;
    return this.#term;
  }

  /** One exchange, shared by all; not before its time after a failure, which is an answer until then if it was one. */
  #renew(): Promise<void> {
    if (this.#asking !== undefined) return this.#asking;
    const waitMs = this.#notBeforeMs - this.#clock.now();
    if (waitMs > 0 && isAnswer(this.#failure)) return Promise.reject(this.#failure);
    const asking = this.#exchange(waitMs).finally(() => {
      this.#asking = undefined;
      this.#setTimer();
    });
    this.#asking = asking;
    return asking;
  }

  async #exchange(waitMs: number): Promise<void> {
    if (waitMs > 0) await new Promise<void>((resolve) => this.#clock.later(waitMs, resolve));
    this.#ended.signal.throwIfAborted();
    const refused = this.#refused;
    const askedAtMs = this.#clock.now();
    try {
      const term = await this.#options.ask(refused);
      this.#ended.signal.throwIfAborted();
      // Refused while it was asked for something else: that may be the very same.
      if (refused) this.#refused = false;
      if (refused) this.#refusalsFromMs = this.#clock.now() + refusalPauseMs;
      if (term.absentReason !== undefined && this.#hadCredential) {
        this.#term = undefined;
        throw gone(`${term.absentReason}: there is no credential for ${term.provider.registry} any more`);
      }
      this.#begin(term, askedAtMs);
      this.#options.onTerm?.(term, refused);
    } catch (thrown) {
      this.#ended.signal.throwIfAborted();
      this.#failed(thrown);
      throw thrown;
    }
  }

  /** Counted from when it was asked for: no exchange takes longer than it seems from here. */
  #begin(term: LeaseTerm, atMs: number): void {
    const { validForMs = Number.POSITIVE_INFINITY, renewInMs = validForMs / 2 } = term;
    this.#term = term;
    this.#hadCredential ||= term.provider.type !== "public";
    this.#failures = 0;
    this.#failure = undefined;
    this.#notBeforeMs = Number.NEGATIVE_INFINITY;
    const now = this.#clock.now();
    this.#endsAtMs = Math.max(atMs + validForMs, now + leastLifeMs);
    const renewAtMs = atMs + renewInMs * (1 - jitter * this.#clock.random());
    this.#renewAtMs = Math.max(renewAtMs, now + leastLifeMs / 2);
    this.#setTimer();
  }

  #failed(thrown: unknown): void {
    const before = this.#failure;
    this.#failures += 1;
    this.#failure = thrown;
    const leftMs = this.#good() === undefined ? 0 : this.#endsAtMs - this.#clock.now();
    const mostMs = Math.max(longestRetryMs, Math.min(leftMs / 10, longestPauseMs));
    const retryMs = Math.min(firstRetryMs * 2 ** (this.#failures - 1), mostMs);
    const pauseMs = isAnswer(thrown) ? refusalPauseMs : retryMs * (1 - this.#clock.random() / 2);
    this.#notBeforeMs = this.#clock.now() + pauseMs;
    const another = isAnswer(thrown) && messageOf(thrown) !== messageOf(before);
    if (this.#failures === 1 || another) this.#options.onFailure?.(thrown);
  }

  #setTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (this.#ended.signal.aborted || this.#asking !== undefined) return;
    const atMs = Math.max(this.#renewAtMs, this.#notBeforeMs);
    if (!Number.isFinite(atMs)) return;
    this.#cancelTimer = this.#clock.later(Math.max(0, atMs - this.#clock.now()), () => {
      if (this.#options.keptUp()) void this.#renew().catch(() => undefined);
    });
  }
}

function isAnswer(thrown: unknown): boolean {
  return thrown instanceof CredentialError && thrown.code !== "provider_unreachable";
}

/** What a container began with is not there any more: nothing else is tried in its place. */
function gone(message: string): CredentialError {
  return new CredentialError("no_credentials", message, {
    next: "Store the credential again with `oci-node secret create`, or build the image again with --creds.",
  });
}

/**
 * Another authorization by the same credential, which needs no control plane; `undefined` when its issuer refuses.
 *
 * @throws CredentialError `provider_unreachable`
 */
async function reissue(
  provider: CredentialProvider,
  signal: AbortSignal | undefined,
): Promise<RegistryAuthorization | undefined> {
  try {
    return await provider.authorization(signal, { refresh: true });
  } catch (thrown) {
    if (!(thrown instanceof CredentialError) || thrown.code === "provider_unreachable") throw thrown;
    return undefined;
  }
}

function nobodyAnswers(): CredentialError {
  return new CredentialError("provider_unreachable", "nobody has answered with a credential for the image", {
    next: "Check that the scheduler runs and that this worker reaches it; it is asked again by itself.",
  });
}
