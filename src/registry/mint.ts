import type { RegistryAuthorization } from "../credential/provider.ts";
import { openedBy } from "../credential/scope.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { waitFor } from "../std/wait.ts";
import type { Where } from "./error.ts";
import { grantedBy } from "./grant.ts";
import type { Clock } from "./retry.ts";
import { type Carried, newForMs, type Session } from "./session.ts";
import { isAway } from "./unproved.ts";

/** What somebody else needs to pull one repository for a while, in place of the credential. */
export interface MintedPull {
  readonly authorization: RegistryAuthorization;
  readonly validUntil: Date;
  /** What can be done with it, in words: `pull acme/app`, `every repository of account 111111111111`. */
  readonly scope: string;
  /** The manifest that was asked for with it when it was made, by tag or digest, and when that was. */
  readonly proved: { readonly manifest: string; readonly at: Date };
  /**
   * When the credential itself was asked with. What it gave then may live on for hours, however soon it was revoked: this is
   * how old the proof is.
   */
  readonly provedAt: Date;
}

/**
 * `unasked`: the registry gave the manifest without asking who wants it. `undefined`: it takes nothing but the credential
 * itself.
 */
export type Minted = MintedPull | "unasked" | undefined;

export interface MintOptions {
  /** The registry refused the last one. */
  readonly anew?: boolean;
  /** Whoever asks has the last one, and comes a little before it is due. */
  readonly early?: boolean;
  /**
   * It is to prove access: the credential itself must have been asked with no longer ago than so, in milliseconds; 0: it
   * is asked with now. Absent: whatever is good will do.
   */
  readonly withinMs?: number;
}

/** Asks for a manifest, so that what is handed out is known to be good for it. */
export interface Proof {
  readonly manifest: string;
  readonly ask: (signal: AbortSignal) => Promise<unknown>;
}

interface Kept {
  readonly minted: MintedPull;
  readonly madeAtMs: number;
  readonly renewAtMs: number;
}

/** An issuer's clock that is behind ours makes authorizations that have ended; they are good for as long as nothing is said. */
const unsaidLifeMs = 60_000;

/**
 * Pull authorizations for one repository, got with one credential and proved by asking for a manifest. Kept until half of
 * their life is over, one exchange at once, whoever waits.
 */
export class Minter {
  readonly #session: Session;
  readonly #where: Where;
  readonly #clock: Clock;
  readonly #totalTimeoutMs: number;
  readonly #flights = new SingleFlight<Minted>();
  #kept: Kept | undefined;

  constructor(session: Session, where: Where, clock: Clock, totalTimeoutMs: number) {
    this.#session = session;
    this.#where = where;
    this.#clock = clock;
    this.#totalTimeoutMs = totalTimeoutMs;
  }

  /** What there is without asking anybody; `over`: there was something, which has ended. */
  peek(): MintedPull | "over" | undefined {
    const kept = this.#kept?.minted;
    return kept !== undefined && this.#clock.now() >= kept.validUntil.getTime() ? "over" : kept;
  }

  /** @throws RegistryError, CredentialError */
  mint(proof: Proof, signal: AbortSignal, options: MintOptions): Promise<Minted> {
    const { anew = false, early = false, withinMs } = options;
    const kept = this.#kept;
    const now = this.#clock.now();
    const newUntilMs = (kept?.madeAtMs ?? 0) + newForMs;
    const servesUntilMs = anew || early ? newUntilMs : kept?.renewAtMs;
    const provedAtMs = kept?.minted.provedAt.getTime() ?? Number.NEGATIVE_INFINITY;
    const isProof = withinMs === undefined || now - provedAtMs < withinMs;
    if (kept !== undefined && isProof && now < (servesUntilMs ?? 0)) return Promise.resolve(kept.minted);
    const how = anew ? "anew" : isProof ? "next" : "proof";
    // Several wait for it, so it has a time of its own instead of anybody's signal.
    const call = () => this.#make(proof, AbortSignal.timeout(this.#totalTimeoutMs), how, withinMs);
    return waitFor(this.#flights.run(how === "proof" ? `proof ${withinMs}` : how, call), signal);
  }

  async #make(
    proof: Proof,
    signal: AbortSignal,
    how: "anew" | "next" | "proof",
    withinMs = 0,
  ): Promise<Minted> {
    const anew = how === "anew";
    // What was refused serves nobody any more.
    if (anew) this.#kept = undefined;
    const kept = this.#kept;
    try {
      if (kept === undefined && !anew && this.#session.agreed && (await this.#isUnending(signal)))
        return undefined;
      if (anew) this.#session.renew();
      else if (how === "proof") await this.#session.proveWithin(withinMs, signal);
      else if (kept !== undefined) await this.#session.renewEarly(signal);
      await proof.ask(signal);
      const carried = await this.#session.carried(signal);
      if (carried !== undefined) return this.#keep(carried, proof.manifest);
      this.#forget();
      return this.#session.agreed ? undefined : "unasked";
    } catch (error) {
      // The credential is not good any more, or not for this: what it made before is handed to nobody else.
      if (!isAway(error)) this.#kept = undefined;
      // What there is serves others until its end; it proves nothing.
      if (kept === undefined || how === "proof" || !isAway(error)) throw error;
      if (this.#clock.now() >= kept.minted.validUntil.getTime()) throw error;
      return kept.minted;
    }
  }

  /** A password without an end, as seen before: nothing needs to be asked for to know. */
  async #isUnending(signal: AbortSignal): Promise<boolean> {
    const carried = await this.#session.carried(signal);
    return carried !== undefined && carried.endsAtMs === undefined;
  }

  #keep(carried: Carried, manifest: string): MintedPull | undefined {
    const { authorization, endsAtMs, exchanged, echoed } = carried;
    if (endsAtMs === undefined) return this.#forget();
    const madeAtMs = this.#clock.now();
    const validUntilMs = Math.max(endsAtMs, madeAtMs + (exchanged ? 0 : unsaidLifeMs));
    const minted = {
      authorization: authorization.kind === "basic" ? { ...authorization, preemptive: true } : authorization,
      validUntil: new Date(validUntilMs),
      scope: exchanged ? grantedBy(authorization, this.#where, echoed) : openedBy(this.#where.registry),
      proved: { manifest, at: new Date(madeAtMs) },
      provedAt: new Date(Math.max(this.#session.provedAtMs, 0)),
    };
    this.#kept = { minted, madeAtMs, renewAtMs: madeAtMs + (validUntilMs - madeAtMs) / 2 };
    return minted;
  }

  #forget(): undefined {
    this.#kept = undefined;
    return undefined;
  }
}
