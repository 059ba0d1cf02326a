import type { FetchLimits } from "./limits.ts";

/** A request of which nothing has come for so long no longer keeps others from being made. */
const hungAfterMs = 2_000;

/** What one request takes of the {@link DemandLanes}. */
export interface Lane {
  /** Bytes have come: it is slow at most. */
  heard(): void;
  leave(): void;
}

/**
 * The requests at once, and the bytes on their way, that the readers of one mount may ask for. A request that hangs gives
 * its share to the next, so that one bad blob, or one bad server of many, does not keep the others from being read;
 * twice as many as there are lanes may hang so.
 */
export class DemandLanes {
  readonly #limits: FetchLimits;
  readonly #onFree: () => void;
  #taken = 0;
  #takenBytes = 0;
  #hung = 0;

  /** @param onFree called when a lane has become free */
  constructor(limits: FetchLimits, onFree: () => void) {
    this.#limits = limits;
    this.#onFree = onFree;
  }

  /** Lanes that are not taken. */
  get free(): number {
    return this.#limits.demandConnections - this.#taken;
  }

  /** Whether the bytes of one more request may be on their way. */
  get hasRoom(): boolean {
    const { rangeBytes, inFlightBytes } = this.#limits;
    return this.#takenBytes === 0 || this.#takenBytes + rangeBytes <= inFlightBytes;
  }

  take(bytes: number): Lane {
    this.#taken += 1;
    this.#takenBytes += bytes;
    let hung = false;
    const give = (): void => {
      this.#taken -= 1;
      this.#takenBytes -= bytes;
    };
    const timer = setTimeout(() => {
      if (this.#hung >= 2 * this.#limits.demandConnections) return;
      hung = true;
      this.#hung += 1;
      give();
      this.#onFree();
    }, hungAfterMs);
    return {
      heard: () => clearTimeout(timer),
      leave: () => {
        clearTimeout(timer);
        if (hung) this.#hung -= 1;
        else give();
        this.#onFree();
      },
    };
  }
}
