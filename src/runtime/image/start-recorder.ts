import type { TraceKey, TraceStore } from "../../index/trace-store.ts";
import type { LazyImage } from "../../mount/lazy-image.ts";
import { messageOf } from "../../std/error.ts";
import { logger } from "../../std/log.ts";

const lookMs = 2_000;
/** A program that has read nothing new for so long has started. */
const settledMs = 10_000;
/** What a program reads after that is its work, not its start. */
const startMsMax = 60_000;

type ReadImage = Pick<LazyImage, "readSoFar" | "endNotes">;

/**
 * Records what one start of a container read as a trace for the next: when nothing new has been read for a while, after a
 * minute, or when the container has ended, whichever comes first.
 */
export class StartRecorder {
  readonly #image: ReadImage;
  readonly #traces: TraceStore;
  readonly #key: TraceKey;
  readonly #startedMs = performance.now();
  readonly #timer: ReturnType<typeof setInterval>;
  #rangesSeen = 0;
  #changedMs = performance.now();
  #ended: Promise<void> | undefined;

  /** @param image of the container that opened its mount; of another there is nothing to record */
  constructor(image: ReadImage, traces: TraceStore, key: TraceKey) {
    this.#image = image;
    this.#traces = traces;
    this.#key = key;
    this.#timer = setInterval(() => this.#look(), lookMs);
    this.#timer.unref();
  }

  /** Records unless that was done. Never throws: a trace is a hint. Must be called before the image is released. */
  finish(): Promise<void> {
    this.#ended ??= this.#record();
    return this.#ended;
  }

  /** Records nothing any more: what a start read that failed says nothing about the next. */
  drop(): void {
    this.#ended ??= Promise.resolve();
    this.#end();
  }

  #look(): void {
    const now = performance.now();
    const ranges = this.#image.readSoFar()?.ranges.length ?? 0;
    if (ranges !== this.#rangesSeen) this.#changedMs = now;
    this.#rangesSeen = ranges;
    if (now - this.#changedMs >= settledMs || now - this.#startedMs >= startMsMax) void this.finish();
  }

  #end(): void {
    clearInterval(this.#timer);
    this.#image.endNotes();
  }

  async #record(): Promise<void> {
    this.#end();
    const start = this.#image.readSoFar();
    if (start === undefined || start.ranges.length === 0) return;
    const about = { workspace: this.#key.workspace, manifest: this.#key.manifestDigest };
    try {
      const { ranges, starts } = await this.#traces.record(this.#key, start);
      logger("worker").debug("recorded what a start read", { ...about, ranges: ranges.length, starts });
    } catch (error) {
      logger("worker").warning("a trace could not be kept", { ...about, error: messageOf(error) });
    }
  }
}
