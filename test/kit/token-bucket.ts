/** Lets bytes through at a rate over all who ask, in the order of asking. A rate of 0 lets all through at once. */
export class TokenBucket {
  readonly #bytesPerSecond: number;
  readonly #burstBytes: number;
  #tokens: number;
  #filledAtMs = performance.now();
  #timer: NodeJS.Timeout | undefined;
  readonly #queue: { sizeBytes: number; go: () => void }[] = [];

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#burstBytes = bytesPerSecond * 0.005;
    this.#tokens = this.#burstBytes;
  }

  /** Calls `go` when it is this asker's turn and the bucket is not in debt; a chunk may put it into debt. */
  take(sizeBytes: number, go: () => void): void {
    if (this.#bytesPerSecond === 0) {
      go();
      return;
    }
    this.#queue.push({ sizeBytes, go });
    if (this.#timer === undefined) this.#serve();
  }

  #serve(): void {
    const nowMs = performance.now();
    this.#tokens = Math.min(
      this.#burstBytes,
      this.#tokens + ((nowMs - this.#filledAtMs) / 1000) * this.#bytesPerSecond,
    );
    this.#filledAtMs = nowMs;
    while (this.#tokens >= 0) {
      const next = this.#queue.shift();
      if (next === undefined) return;
      this.#tokens -= next.sizeBytes;
      next.go();
    }
    const waitMs = Math.max(1, (-this.#tokens / this.#bytesPerSecond) * 1000);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#serve();
    }, waitMs);
  }
}
