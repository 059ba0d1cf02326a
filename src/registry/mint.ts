import { CredentialError } from "../credential/error.ts";
import type { RegistryAuthorization } from "../credential/provider.ts";
import { openedBy } from "../credential/scope.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { waitFor } from "../std/wait.ts";
import { isPassing, type Where } from "./error.ts";
import { grantedBy } from "./grant.ts";
import type { Clock } from "./retry.ts";
import { type Carried, newForMs, type Session } from "./session.ts";

/** What somebody else needs to pull one repository for a while, in place of the credential. */
export interface MintedPull {
  readonly authorization: RegistryAuthorization;
  readonly validUntil: Date;
  /** What can be done with it, in words: `pull acme/app`, `every repository of account 111111111111`. */
  readonly scope: string;
  /** The manifest that was asked for with it when it was made, by tag or digest, and when that was. */
  readonly proved: { readonly manifest: string; readonly at: Date };
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
  mint(proof: Proof, signal: AbortSignal, { anew = false, early = false }: MintOptions): Promise<Minted> {
    const kept = this.#kept;
    const newUntilMs = (kept?.madeAtMs ?? 0) + newForMs;
    const servesUntilMs = anew || early ? newUntilMs : kept?.renewAtMs;
    if (kept !== undefined && this.#clock.now() < (servesUntilMs ?? 0)) return Promise.resolve(kept.minted);
    // Several wait for it, so it has a time of its own instead of anybody's signal.
    const call = () => this.#make(proof, AbortSignal.timeout(this.#totalTimeoutMs), anew);
    return waitFor(this.#flights.run(anew ? "anew" : "next", call), signal);
  }

  async #make(proof: Proof, signal: AbortSignal, anew: boolean): Promise<Minted> {
    // What was refused serves nobody any more.
    if (anew) this.#kept = undefined;
    const kept = this.#kept;
    try {
      if (kept === undefined && !anew && this.#session.agreed && (await this.#isUnending(signal)))
        return undefined;
      if (anew) this.#session.renew();
      else if (kept !== undefined) await this.#session.renewEarly(signal);
      await proof.ask(signal);
      const carried = await this.#session.carried(signal);
      if (carried !== undefined) return this.#keep(carried, proof.manifest);
      this.#forget();
      return this.#session.agreed ? undefined : "unasked";
    } catch (error) {
      // The credential is not good any more, or not for this: what it made before is handed to nobody else.
      if (!isAway(error)) this.#kept = undefined;
      if (kept === undefined || !isAway(error)) throw error;
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
    };
    this.#kept = { minted, madeAtMs, renewAtMs: madeAtMs + (validUntilMs - madeAtMs) / 2 };
    return minted;
  }

  #forget(): undefined {
    this.#kept = undefined;
    return undefined;
  }
}

/** Whoever should make the next cannot be reached; refusing it is something else. */
function isAway(error: unknown): boolean {
  return isPassing(error) || (error instanceof CredentialError && error.code === "provider_unreachable");
}
