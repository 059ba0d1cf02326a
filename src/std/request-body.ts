import type { Socket } from "node:net";
import type { Readable, Writable } from "node:stream";

/** What a body is kept up to, so that it can be sent again. */
export const keptBytesMax = 1024 * 1024;
/** What is let by of a body that nobody wants, before its connection is broken off. */
const discardedBytesMax = 4 * 1024 * 1024;

/** A server's request: of HTTP/1.1, or of HTTP/2 with node:http2's compatible interface. */
export interface BodyCarrier extends Readable {
  readonly headers: { readonly [name: string]: string | string[] | undefined };
  readonly httpVersionMajor: number;
  readonly socket: Socket;
}

/**
 * The body of a request on its way to somebody else. Of what nobody takes no more is held than {@link keptBytesMax} and what
 * the connection's buffers hold.
 *
 * Bun 1.4.5 reads on and on from an HTTP/1.1 connection that was handed to a server with `emit("connection")` or that speaks
 * TLS, whether the request is read or not: there, the connection itself is paused.
 */
export class RequestBody {
  /** As the sender says; `undefined`: it has not said, or nothing that can be counted on. */
  readonly lengthBytes: number | undefined;
  readonly #carrier: BodyCarrier;
  #bytesMax = Number.POSITIVE_INFINITY;
  #kept: Buffer[] = [];
  #bytes = 0;
  #ended: boolean;
  #lost = false;
  #held = false;
  #reading = false;
  #discarding = false;
  #out: Writable | undefined;
  #excess: (() => void) | undefined;
  #wake: (() => void) | undefined;
  #ask: (() => void) | undefined;

  /**
   * @param ask of a sender who waits to be asked for it (RFC 9110, 10.1.1): called when it is wanted
   */
  constructor(carrier: BodyCarrier, ask?: () => void) {
    this.#carrier = carrier;
    this.#ask = ask;
    const { "content-length": length, "transfer-encoding": encoding } = carrier.headers;
    this.lengthBytes = typeof length === "string" && /^\d{1,15}$/.test(length) ? Number(length) : undefined;
    const none =
      carrier.httpVersionMajor === 1 ? length === undefined && encoding === undefined : endsWithHead(carrier);
    this.#ended = none || this.lengthBytes === 0 || carrier.readableEnded;
    if (this.#ended) this.lengthBytes ??= 0;
    else this.#hold();
  }

  /** The body where all of it is here. */
  get whole(): Buffer | undefined {
    if (!this.#ended || this.#lost) return undefined;
    if (this.#kept.length > 1) this.#kept = [Buffer.concat(this.#kept)];
    return this.#kept[0] ?? empty;
  }

  /** Whether nothing was given away that is not here any more. */
  get repeatable(): boolean {
    return !this.#lost;
  }

  /** Whether its sender waits still to be asked for it: what he does without it, his connection cannot tell. */
  get unasked(): boolean {
    return this.#ask !== undefined && !this.#ended;
  }

  /** Takes no more than so much of it; `excess` is called once, when more comes. */
  limit(bytesMax: number, excess: () => void): void {
    this.#bytesMax = bytesMax;
    this.#excess = excess;
  }

  /** Once: reads until all of it is here, or as much as is kept. The sender may take his time: this is for one who was not served yet. */
  async gather(): Promise<void> {
    if (this.#ended) return;
    this.#read();
    this.#resume();
    if (this.#ended) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Sends it, as it comes, and ends `out`. Again only while it is {@link repeatable}. */
  sendTo(out: Writable): void {
    const { whole } = this;
    if (whole !== undefined) {
      if (whole.length === 0) out.end();
      else out.end(whole);
      return;
    }
    this.#lost = true;
    this.#out = out;
    const kept = this.#kept;
    this.#kept = [];
    let free = true;
    for (const piece of kept) free = out.write(piece);
    if (this.#ended) {
      out.end();
      return;
    }
    out.on("drain", this.#onDrain);
    out.once("close", () => this.#leave(out));
    this.#read();
    if (free) this.#resume();
    else this.#hold();
  }

  /** Lets the rest come and go: unread, it would be in the way of what follows on its connection. One that is long breaks it off. */
  discard(): void {
    this.#lost = true;
    this.#kept = [];
    this.#out = undefined;
    this.#wake?.();
    if (this.#ended || this.unasked) {
      if (this.#held) this.#resume();
      return;
    }
    this.#bytes = 0;
    this.#discarding = true;
    this.#read();
    this.#resume();
  }

  #read(): void {
    if (this.#reading || this.#ended) return;
    this.#reading = true;
    this.#ask?.();
    this.#ask = undefined;
    const carrier = this.#carrier;
    carrier.on("data", (piece: Buffer) => this.#take(piece));
    carrier.once("end", () => this.#end());
    // Whoever waits for the answer sees that the client is gone; here it only ends.
    carrier.once("error", () => this.#end(true));
    carrier.once("close", () => this.#end(true));
  }

  #take(piece: Buffer): void {
    this.#bytes += piece.length;
    if (this.#discarding) {
      if (this.#bytes > discardedBytesMax) this.#carrier.destroy();
      return;
    }
    if (this.#bytes > this.#bytesMax) {
      this.#hold();
      const tell = this.#excess;
      this.#excess = undefined;
      tell?.();
      return;
    }
    if (this.#out !== undefined) {
      if (!this.#out.write(piece)) this.#hold();
      return;
    }
    this.#kept.push(piece);
    if (this.#bytes < keptBytesMax) return;
    this.#hold();
    this.#wake?.();
  }

  #end(broken = false): void {
    if (this.#ended) return;
    this.#ended = true;
    // Its last piece may have been too much for who takes it: what follows on the connection is another request.
    this.#resume();
    if (broken) this.#lost = true;
    this.#wake?.();
    const out = this.#out;
    this.#out = undefined;
    if (out === undefined) return;
    out.off("drain", this.#onDrain);
    // Half of a body must not look like all of it.
    if (broken) out.destroy();
    else out.end();
  }

  readonly #onDrain = (): void => this.#resume();

  #leave(out: Writable): void {
    if (this.#out !== out) return;
    this.#out = undefined;
    this.discard();
  }

  #hold(): void {
    if (this.#held) return;
    this.#held = true;
    this.#carrier.pause();
    if (this.#carrier.httpVersionMajor === 1) this.#carrier.socket.pause();
  }

  #resume(): void {
    if (!this.#held) return;
    this.#held = false;
    if (this.#carrier.httpVersionMajor === 1) this.#carrier.socket.resume();
    this.#carrier.resume();
  }
}

const empty = Buffer.alloc(0);

/** Whether an HTTP/2 request is all in its head. */
function endsWithHead(carrier: BodyCarrier): boolean {
  const { stream } = carrier as { stream?: { endAfterHeaders?: boolean } };
  return stream?.endAfterHeaders === true;
}
