import { spanFile } from "../index/types.ts";
import type { Engine } from "../native/engine.ts";
import { toMountError } from "./errno.ts";
import type { MountError } from "./error.ts";
import { noSpaceFor, notInStream } from "./failure.ts";
import type { FetchOutcome, LayerFetch } from "./layer-fetch.ts";
import type { SourceRequests } from "./source-requests.ts";
import { SpanCutter } from "./span-cutter.ts";

/**
 * Brings one layer as a whole stream: for registries without ranged reads and for compressions that cannot be entered
 * in the middle. Readers are answered as their spans go by. A span that is still missing at the end is looked for in one
 * more stream; then its readers get an error.
 */
export class LayerStream {
  readonly #layer: LayerFetch;
  readonly #engine: Engine;
  readonly #requests: SourceRequests;
  readonly #failed: (layer: LayerFetch, span: number, error: MountError) => void;
  #noSpace = false;

  constructor(options: {
    readonly layer: LayerFetch;
    readonly engine: Engine;
    readonly requests: SourceRequests;
    /** Answers a span's readers with an error. */
    readonly failed: (layer: LayerFetch, span: number, error: MountError) => void;
  }) {
    this.#layer = options.layer;
    this.#engine = options.engine;
    this.#requests = options.requests;
    this.#failed = options.failed;
  }

  /** Runs to the end of the layer. Never throws: the error goes to those who wait, and is returned. */
  async run(): Promise<FetchOutcome> {
    const layer = this.#layer;
    const digest = layer.descriptor.digest;
    try {
      do await this.#once();
      while (this.#lookAgain());
      const missing = this.#noSpace ? -1 : layer.blob.nextMissing(0);
      return { error: missing < 0 ? undefined : notInStream(digest, missing), noSpace: this.#noSpace };
    } catch (thrown) {
      const error = toMountError(thrown, `streaming layer ${digest}`, digest);
      for (const span of [...layer.waiting]) this.#failed(layer, span, error);
      return { error, noSpace: this.#noSpace };
    }
  }

  #once(): Promise<void> {
    return this.#layer.blob.kind === spanFile.kinds.zstdStream ? this.#inflateStream() : this.#cutStream();
  }

  async #cutStream(): Promise<void> {
    const { blob, descriptor } = this.#layer;
    const cutter = new SpanCutter(blob, (span) => !blob.isPresent(span));
    for await (const chunk of this.#requests.stream(descriptor)) {
      // What goes by is perhaps here already, and fills nothing: readers of later spans wait on all the same.
      if (this.#layer.waiting.size > 0) this.#engine.progress(blob, chunk.length);
      for (const { span, bytes } of cutter.push(chunk)) {
        const results = await this.#engine.fill(blob, span, span, bytes);
        if (results[0]?.status === "no_space") this.#servedFromMemory(span);
        this.#sweep();
      }
    }
  }

  async #inflateStream(): Promise<void> {
    const fill = this.#engine.streamOpen(this.#layer.blob);
    try {
      for await (const chunk of this.#requests.stream(this.#layer.descriptor)) {
        await fill.push(chunk);
        this.#sweep();
      }
      await fill.end();
    } finally {
      fill.close();
    }
    // Every span went by and was right: what is not there was served and could not be kept.
    this.#noSpace = this.#layer.blob.nextMissing(0) >= 0;
  }

  #servedFromMemory(span: number): void {
    this.#noSpace = true;
    this.#layer.served(span);
  }

  /** Forgets the waiting spans that are there by now: the engine has answered their readers. */
  #sweep(): void {
    for (const span of this.#layer.waiting) if (this.#layer.blob.isPresent(span)) this.#layer.served(span);
  }

  #lookAgain(): boolean {
    this.#sweep();
    const { waiting, suspects, descriptor } = this.#layer;
    let again = false;
    for (const span of [...waiting]) {
      const { digest } = descriptor;
      if (suspects.delete(span))
        this.#failed(this.#layer, span, this.#noSpace ? noSpaceFor(digest) : notInStream(digest, span));
      else {
        suspects.add(span);
        again = true;
      }
    }
    return again;
  }
}
