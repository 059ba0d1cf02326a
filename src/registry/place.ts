/** Why a request was given up before its end, so that it is asked again. */
export type Abandonment =
  /** The host answers what was asked later. */
  | "overtaken"
  /** Somebody who waits for a place gets this one. */
  | "displaced";

/** A request of which nothing is heard is not given up before this, and twice as long when its body has begun. */
export const firstPatienceMs = 1_000;
const longestPatienceMs = 8_000;
const finishedFirstMax = 4;

/** How long one piece of work, over all its requests, waits while its host answers others. It only grows. */
export class Patience {
  #ms = firstPatienceMs;
  #finishedFirst = 0;

  /** How long to wait in silence, when the host's heads usually make others wait for `usualMs`. */
  of(place: Place, usualMs: number): number {
    const ms = Math.min(Math.max(this.#ms, 2 * usualMs), longestPatienceMs);
    return place.reading ? 2 * ms : ms;
  }

  /** Whether it was overtaken before: then what looks stuck may be merely slow. */
  get tried(): boolean {
    return this.#ms > firstPatienceMs;
  }

  /** A whole answer that began later is no accident, but may be believed so often only. */
  get believes(): boolean {
    return this.#finishedFirst < finishedFirstMax;
  }

  overtaken(finishedFirst: boolean): void {
    this.#ms = Math.min(this.#ms * 2, longestPatienceMs);
    if (finishedFirst) this.#finishedFirst += 1;
  }
}

/** What a place needs of its host. */
export interface PlaceOwner {
  now(): number;
  heard(place: Place): void;
  answered(place: Place, well: boolean, waitedMs: number): void;
  failed(place: Place): void;
  broke(place: Place): void;
  left(place: Place, whole: boolean): void;
}

/**
 * Asks the host something light, the same way: for a head, or for a little of a body, too. Resolves with how far the
 * answer came. Never rejects.
 */
export type Probe = (withBody: boolean) => Promise<"nothing" | "answered" | "finished">;

export interface PlaceOptions {
  readonly patience: Patience;
  readonly probe: Probe;
  /** Made out of turn, to see whether the host answers again. */
  readonly trial: boolean;
  /** Made while the host was silent. */
  readonly inSilence: boolean;
}

/** One request under way at a host, from its start to the end of its body. */
export class Place {
  readonly beganMs: number;
  readonly patience: Patience;
  readonly probe: Probe;
  readonly trial: boolean;
  readonly inSilence: boolean;
  /** When the host was last asked something light in this request's name. */
  probedMs = Number.NEGATIVE_INFINITY;
  readonly #owner: PlaceOwner;
  readonly #given = new AbortController();
  #waitingSinceMs: number | undefined;
  #reading = false;
  #abandoned: Abandonment | undefined;
  #left = false;

  constructor(owner: PlaceOwner, options: PlaceOptions) {
    this.#owner = owner;
    this.patience = options.patience;
    this.probe = options.probe;
    this.trial = options.trial;
    this.inSilence = options.inSilence;
    this.beganMs = owner.now();
    this.#waitingSinceMs = this.beganMs;
  }

  /** Aborts when the request is given up: see {@link abandoned}. */
  get signal(): AbortSignal {
    return this.#given.signal;
  }

  get abandoned(): Abandonment | undefined {
    return this.#abandoned;
  }

  /** Whether the head is there. */
  get reading(): boolean {
    return this.#reading;
  }

  /** Since when the host owes a head or the next bytes; `undefined` while nobody waits for them. */
  get waitingSinceMs(): number | undefined {
    return this.#waitingSinceMs;
  }

  /** The head has come. `well`: not a failure of the server. */
  answered(well: boolean): void {
    const waitedMs = this.#owner.now() - (this.#waitingSinceMs ?? this.beganMs);
    this.#waitingSinceMs = undefined;
    this.#reading = true;
    this.#owner.answered(this, well, waitedMs);
  }

  /** The next bytes of the body are wanted. */
  awaits(): void {
    this.#waitingSinceMs = this.#owner.now();
  }

  /** Bytes of the body have come. */
  heard(): void {
    this.#waitingSinceMs = undefined;
    this.#owner.heard(this);
  }

  /** The body has ended before its end. */
  broke(): void {
    this.#owner.broke(this);
  }

  /** There was no answer. */
  failed(): void {
    this.#owner.failed(this);
    this.leave(false);
  }

  /** Gives the place free. @param whole the body has come to its end */
  leave(whole: boolean): void {
    if (this.#left) return;
    this.#left = true;
    this.#waitingSinceMs = undefined;
    this.#owner.left(this, whole);
  }

  /** Ends the request, for it to be asked again. */
  abandon(why: Abandonment): void {
    this.#abandoned = why;
    this.leave(false);
    this.#given.abort();
  }
}
