const bytesMaxDefault = 256 * 1024 * 1024;

/** What a gateway keeps of the bodies of requests that wait: thousands may, and each up to a megabyte. */
export class BodyRoom {
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax = bytesMaxDefault) {
    this.#bytesMax = bytesMax;
  }

  /** False: the body has to stay where it is until there is a container. */
  take(bytes: number): boolean {
    if (this.#bytes + bytes > this.#bytesMax) return false;
    this.#bytes += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#bytes -= bytes;
  }
}
