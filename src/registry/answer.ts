import { RegistryError, type Where } from "./error.ts";
import type { Place } from "./place.ts";

/** What an {@link Answer} needs to know about the request that it belongs to. */
export interface AnswerContext {
  readonly where: Where;
  readonly idleTimeoutMs: number;
  /** Frees the connection at once. */
  readonly abort: () => void;
  /** Called once, when the body has ended (`whole`) or was given up. */
  readonly done: (whole: boolean) => void;
  /** Its place among the requests to the host: hears what is waited for and what comes. */
  readonly place: Pick<Place, "awaits" | "heard" | "broke" | "abandoned">;
  /** The caller's signal: its reason is thrown as it is. */
  readonly signal: AbortSignal;
  /** Turns the platform's error into ours. */
  readonly translate: (error: unknown) => unknown;
}

const drainSizeBytesMax = 16 * 1024;

/** An answer's head, and its body to be read once or discarded. Either must be done, or the connection stays busy. */
export class Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly #body: ReadableStream<Uint8Array> | null;
  readonly #context: AnswerContext;
  #ended = false;

  constructor(response: Response, context: AnswerContext) {
    this.status = response.status;
    this.headers = response.headers;
    this.#body = response.body;
    this.#context = context;
    if (this.#body === null) this.#end(true);
  }

  /** Content-Length, when it is a sound number. */
  get length(): number | undefined {
    const text = this.headers.get("content-length");
    return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
  }

  /** The body as it comes. Leaving the loop early closes the connection. A silence longer than the limit throws. */
  async *chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#body === null || this.#ended) return;
    const reader = this.#body.getReader();
    let idle = false;
    let complete = false;
    const giveUp = (): void => {
      idle = true;
      this.#context.abort();
    };
    try {
      for (;;) {
        const timer = setTimeout(giveUp, this.#context.idleTimeoutMs);
        this.#context.place.awaits();
        const { done, value } = await reader.read().finally(() => clearTimeout(timer));
        if (done) {
          complete = true;
          return;
        }
        this.#context.place.heard();
        yield value;
      }
    } catch (error) {
      this.#context.signal.throwIfAborted();
      if (this.#context.place.abandoned !== undefined) throw this.#overtaken();
      this.#context.place.broke();
      throw idle ? this.#silent() : this.#context.translate(error);
    } finally {
      if (!complete) {
        reader.cancel().catch(() => undefined);
        this.#context.abort();
      }
      this.#end(complete);
    }
  }

  /** The whole body. @throws RegistryError `too_large` */
  async bytes(sizeBytesMax: number): Promise<Uint8Array> {
    if ((this.length ?? 0) > sizeBytesMax) {
      this.discard();
      throw this.#tooLarge(sizeBytesMax);
    }
    const chunks: Uint8Array[] = [];
    let sizeBytes = 0;
    for await (const chunk of this.chunks()) {
      sizeBytes += chunk.byteLength;
      if (sizeBytes > sizeBytesMax) throw this.#tooLarge(sizeBytesMax);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  /** Gives the body up: a short one is read away, so that the connection can serve again, a long one is cut off. */
  discard(): void {
    if (this.#ended) return;
    if (this.length !== undefined && this.length <= drainSizeBytesMax) {
      this.bytes(drainSizeBytesMax).catch(() => undefined);
      return;
    }
    this.#body?.cancel().catch(() => undefined);
    this.#context.abort();
    this.#end(false);
  }

  #end(whole: boolean): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#context.done(whole);
  }

  #overtaken(): RegistryError {
    const { where } = this.#context;
    return new RegistryError("timeout", `${where.registry} stopped sending, and answered others`, where, {
      retryAfterMs: 0,
      next: "The rest is asked for at once.",
    });
  }

  #silent(): RegistryError {
    const { where, idleTimeoutMs } = this.#context;
    return new RegistryError(
      "timeout",
      `${where.registry} stopped sending for ${idleTimeoutMs / 1000} s`,
      where,
      {
        next: "Check the connection to the registry, then try again.",
      },
    );
  }

  #tooLarge(sizeBytesMax: number): RegistryError {
    const { where } = this.#context;
    const message = `${where.registry} answered more than the ${sizeBytesMax} bytes that are allowed here`;
    return new RegistryError("too_large", message, where, { next: "Check what answers at this registry." });
  }
}
