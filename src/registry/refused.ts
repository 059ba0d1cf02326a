import type { CredentialError } from "../credential/error.ts";
import type { RegistryError } from "./error.ts";

/** After a refusal nobody asks again for so long. */
const refusedForMs = 5_000;
/** A credential that has worked may be refused by mistake: the first few times the pause is shorter. */
const doubtedForMs = 900;
const doubtsMax = 5;
/** However long a registry wants to be left alone: it is asked again after so long. */
const longestMs = 60_000;

/** The last refusal of a credential, told again for a while without asking anybody. */
export class LastRefusal {
  readonly #now: () => number;
  #last: { readonly error: RegistryError | CredentialError; readonly untilMs: number } | undefined;
  /** Since the credential worked; endless while it never did. */
  #count = Number.POSITIVE_INFINITY;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** What was refused lately; `undefined`: it may be asked again. */
  get error(): RegistryError | CredentialError | undefined {
    return this.#last !== undefined && this.#now() < this.#last.untilMs ? this.#last.error : undefined;
  }

  keep(error: RegistryError | CredentialError): void {
    this.#count += 1;
    const doubted = this.#count <= doubtsMax || error.code === "provider_unreachable";
    const wanted = "retryAfterMs" in error && error.code === "rate_limited" ? (error.retryAfterMs ?? 0) : 0;
    const pauseMs = Math.max(doubted ? doubtedForMs : refusedForMs, Math.min(wanted, longestMs));
    this.#last = { error, untilMs: this.#now() + pauseMs };
  }

  /** The credential was believed. */
  worked(): void {
    this.#count = 0;
  }
}
