import { type Patience, Place, type PlaceOptions, type PlaceOwner, type Probe } from "./place.ts";

export interface HostRules {
  /** Requests at once. */
  readonly connections: number;
  /** At a host that is in trouble, one request or probe goes out in so long. */
  readonly trialEveryMs: number;
  /** Without a word for so long, while somebody waits, a host counts as silent. */
  readonly silentAfterMs: number;
}

/** Time as a host sees it. Tests make it virtual. */
export interface HostTime {
  readonly now: () => number;
  /** Calls back once, after the time. */
  readonly later: (timeMs: number, call: () => void) => void;
}

/** What is asked of a host, as far as the order of asking goes. */
export interface Turn {
  /** Nobody waits for it. */
  readonly background: boolean;
  /** It failed before. */
  readonly again: boolean;
  /** Not before this has passed, unless the host is seen to work again. */
  readonly pauseMs: number;
  /** Its answer is small: it does not wait for bodies to end. */
  readonly brief?: boolean;
  readonly patience: Patience;
  readonly probe: Probe;
}

interface Waiter {
  readonly turn: Turn;
  readyAtMs: number;
  readonly go: (trial: boolean) => void;
}

/** So many failures in a row, and only trials go out. */
const failuresMax = 5;
const ticksPerTrial = 5;
/** Of the places, so many are kept for what is brief: one of five, four at most. */
const keptForBrief = (connections: number): number => Math.min(4, Math.floor(connections / 5));
/** How much one answer counts for what is usual. */
const usualShare = 0.2;
const usualMsMax = 2_000;

/**
 * The requests to one host: so many at once, in order, those that somebody waits for first.
 *
 * A host is in trouble when it fails, or says nothing, for anybody. Then everything waits here, and one request (or, when
 * none is to be made, a probe) goes out every half second. When that is answered, all go at once, and what was asked
 * before and is still unanswered is given up and asked again: its answer may never come. What is merely slow is not given
 * up, unless the host has answered what it was asked later; and each time, the next try has twice as long.
 */
export class Host implements PlaceOwner {
  readonly #rules: HostRules;
  readonly #time: HostTime;
  readonly #places = new Set<Place>();
  #waiters: Waiter[] = [];
  #failures = 0;
  /** Whether the last second try went well: then the next need not go one by one. */
  #lineOpen = true;
  #breaksBodies = false;
  #ticking = false;
  #heardMs = Number.NEGATIVE_INFINITY;
  #triedMs = Number.NEGATIVE_INFINITY;
  /** When the newest of the requests began that got a head; that came to their end. */
  #answeredBeganMs = Number.NEGATIVE_INFINITY;
  #finishedBeganMs = Number.NEGATIVE_INFINITY;
  #usualMs = 0;

  constructor(rules: HostRules, time: HostTime) {
    this.#rules = rules;
    this.#time = time;
  }

  now(): number {
    return this.#time.now();
  }

  /** Whether nothing is under way and nobody waits. */
  get idle(): boolean {
    return this.#places.size === 0 && this.#waiters.length === 0;
  }

  /** Whether it fails or is silent, so that only trials go out. */
  get inTrouble(): boolean {
    return this.#failures >= failuresMax || this.#isSilent();
  }

  get failures(): number {
    return this.#failures;
  }

  /** Waits for a place, which the caller must leave in the end. Rejects with the signal's reason. */
  enter(turn: Turn, signal: AbortSignal): Promise<Place> {
    signal.throwIfAborted();
    return new Promise((resolve, reject) => {
      const nowMs = this.now();
      const leave = (): void => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        reject(signal.reason);
      };
      const waiter: Waiter = {
        turn,
        readyAtMs: nowMs + turn.pauseMs,
        go: (trial) => {
          signal.removeEventListener("abort", leave);
          this.#waiters = this.#waiters.filter((other) => other !== waiter);
          resolve(this.#begin(turn, trial));
        },
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiters.push(waiter);
      this.#admit();
      this.#try();
      this.#tickLater();
    });
  }

  heard(_: Place): void {
    this.#heardMs = this.now();
  }

  answered(place: Place, well: boolean, waitedMs: number): void {
    if (well && !place.trial && !this.#isSilent())
      this.#usualMs += usualShare * (Math.min(waitedMs, usualMsMax) - this.#usualMs);
    this.#heardMs = this.now();
    this.#answeredBeganMs = Math.max(this.#answeredBeganMs, place.beganMs);
    if (well) this.#works(place.trial);
    else this.#countFailure();
    this.#giveUpOvertaken();
    this.#admit();
  }

  failed(_: Place): void {
    this.#countFailure();
  }

  broke(_: Place): void {
    this.#breaksBodies = true;
    this.#lineOpen = false;
  }

  left(place: Place, whole: boolean): void {
    this.#places.delete(place);
    if (whole) {
      this.#finishedBeganMs = Math.max(this.#finishedBeganMs, place.beganMs);
      this.#breaksBodies = false;
      if (place.trial) this.#openLine();
    }
    this.#admit();
  }

  #begin(turn: Turn, trial: boolean): Place {
    const options: PlaceOptions = {
      patience: turn.patience,
      probe: turn.probe,
      trial,
      inSilence: this.#isSilent(),
    };
    const place = new Place(this, options);
    this.#places.add(place);
    return place;
  }

  #works(trial: boolean): void {
    this.#failures = 0;
    // Where bodies break, heads say nothing.
    if (trial && !this.#breaksBodies) this.#openLine();
  }

  #openLine(): void {
    this.#lineOpen = true;
    for (const waiter of this.#waiters) waiter.readyAtMs = this.now();
  }

  #countFailure(): void {
    this.#failures += 1;
    this.#lineOpen = false;
  }

  /** What is a silence at this host. */
  get #silentForMs(): number {
    return Math.max(this.#rules.silentAfterMs, 2 * this.#usualMs);
  }

  #isSilent(): boolean {
    const before = this.now() - this.#silentForMs;
    return this.#heardMs <= before && this.#waiting().some(({ sinceMs }) => sinceMs <= before);
  }

  /** The requests that the host owes something. */
  #waiting(): { readonly place: Place; readonly sinceMs: number }[] {
    return [...this.#places].flatMap((place) =>
      place.waitingSinceMs === undefined ? [] : [{ place, sinceMs: place.waitingSinceMs }],
    );
  }

  /** Lets in who may go at once. */
  #admit(): void {
    const { connections } = this.#rules;
    while (this.#places.size < connections && this.#waiters.length > 0 && !this.inTrouble) {
      const nowMs = this.now();
      const briefOnly = this.#places.size >= connections - keptForBrief(connections);
      const may = this.#waiters.filter(
        ({ turn, readyAtMs }) =>
          readyAtMs <= nowMs && (!turn.again || this.#lineOpen) && (!briefOnly || turn.brief === true),
      );
      const next = may.find(({ turn }) => !turn.background) ?? may[0];
      if (next === undefined) return;
      next.go(next.turn.again);
    }
  }

  #tickLater(): void {
    if (this.#ticking) return;
    this.#ticking = true;
    this.#time.later(this.#rules.trialEveryMs / ticksPerTrial, () => {
      this.#ticking = false;
      this.#giveUpOvertaken();
      this.#admit();
      this.#try();
      if (!this.idle) this.#tickLater();
    });
  }

  /** Of those who wait, and of those who hear nothing, one tries. */
  #try(): void {
    const nowMs = this.now();
    if (nowMs - this.#triedMs < this.#rules.trialEveryMs) return;
    const ready = this.#waiters.filter(({ readyAtMs }) => readyAtMs <= nowMs);
    // The newest first: what waits longer has mostly been tried, and what it waits for may be stuck for a reason of its own.
    const next =
      ready.findLast(({ turn }) => !turn.again && !turn.background) ??
      ready.find(({ turn }) => turn.again) ??
      ready[0];
    if (next !== undefined && this.#makeRoom()) {
      this.#triedMs = nowMs;
      next.go(true);
      return;
    }
    const stuck = this.#stuckFor(this.#rules.silentAfterMs);
    const asked = stuck.reduce<Place | undefined>(
      (least, place) => (least === undefined || place.probedMs < least.probedMs ? place : least),
      undefined,
    );
    if (asked !== undefined) void this.#probe(asked);
  }

  async #probe(place: Place): Promise<void> {
    const beganMs = this.now();
    this.#triedMs = beganMs;
    place.probedMs = beganMs;
    const came = await place.probe(place.reading);
    if (came === "nothing") return;
    this.#heardMs = this.now();
    this.#answeredBeganMs = Math.max(this.#answeredBeganMs, beganMs);
    if (came === "finished") this.#finishedBeganMs = Math.max(this.#finishedBeganMs, beganMs);
    this.#giveUpOvertaken();
    this.#admit();
  }

  /** A free place, if need be that of a request of which nothing has been heard for long. */
  #makeRoom(): boolean {
    if (this.#places.size < this.#rules.connections) return true;
    const stuck = this.#waiting()
      .filter(({ place, sinceMs }) => this.now() - sinceMs >= place.patience.of(place, this.#usualMs))
      .sort((a, b) => a.sinceMs - b.sinceMs);
    stuck[0]?.place.abandon("displaced");
    return stuck.length > 0;
  }

  #stuckFor(timeMs: number): Place[] {
    const before = this.now() - timeMs;
    return this.#waiting().flatMap(({ place, sinceMs }) => (sinceMs <= before ? [place] : []));
  }

  /** Gives up what the host owes while it answered what it was asked later. */
  #giveUpOvertaken(): void {
    const nowMs = this.now();
    const marginMs = this.#rules.silentAfterMs / 2;
    const newestMs = Math.max(this.#answeredBeganMs, this.#finishedBeganMs);
    for (const place of this.#places) {
      const { patience, waitingSinceMs: sinceMs } = place;
      if (sinceMs === undefined || newestMs <= sinceMs) continue;
      const waitedMs = nowMs - sinceMs;
      // Made to see whether the host answers; it has answered another.
      const outlived =
        place.inSilence && !place.reading && !patience.tried && this.#answeredBeganMs > sinceMs;
      const answeredLater = this.#answeredBeganMs >= sinceMs + marginMs;
      const finishedFirst = this.#finishedBeganMs >= sinceMs + marginMs && patience.believes;
      if (
        outlived ||
        (answeredLater && waitedMs >= patience.of(place, this.#usualMs)) ||
        (finishedFirst && waitedMs >= this.#silentForMs)
      ) {
        patience.overtaken(finishedFirst);
        place.abandon("overtaken");
      }
    }
  }
}
