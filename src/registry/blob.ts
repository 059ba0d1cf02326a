import type { Answer } from "./answer.ts";
import type { ApiAnswer, ApiRequest, RepositoryApi, Traffic } from "./api.ts";
import { blobName, misbehaved, mismatch, noRanges, tooLong, tooShort, truncated } from "./blob-problem.ts";
import type { ReadOptions } from "./blob-source.ts";
import type { Descriptor } from "./descriptor.ts";
import { isPassing } from "./error.ts";
import type { Mirrors } from "./mirror.ts";
import { redirectEndsAt } from "./redirect-expiry.ts";
import { Refusals } from "./refusals.ts";
import { type Supply, Transfer } from "./transfer.ts";

const rangeSizeBytesMax = 256 * 1024 * 1024;
const targetsMax = 1000;

/** The blobs of one repository. Follows redirects once and keeps where they led, for as long as that is valid. */
export class Blobs {
  readonly #api: RepositoryApi;
  readonly #targets = new Map<string, { readonly url: URL; readonly endsAtMs: number }>();
  readonly #refusals: Refusals;
  readonly #mirrors: Mirrors;

  constructor(api: RepositoryApi, mirrors: Mirrors) {
    this.#api = api;
    this.#mirrors = mirrors;
    this.#refusals = new Refusals(api.clock);
  }

  /** The bytes from `start` to `end` (exclusive), exactly. @throws RegistryError `range_unsupported`, … */
  async range(
    blob: Descriptor,
    start: number,
    end: number,
    traffic: Traffic,
    signal: AbortSignal,
    options: ReadOptions = {},
  ): Promise<Uint8Array> {
    if (start < 0 || end <= start || end > blob.size || end - start > rangeSizeBytesMax) {
      throw new RangeError(`bytes ${start} to ${end} of a blob of ${blob.size}`);
    }
    const into = new Uint8Array(end - start);
    const transfer = new Transfer(this.#api, signal, options.background);
    let filled = 0;
    while (filled < into.length) {
      const answer = transfer.begin(await this.#open(blob, start + filled, end, traffic, transfer));
      try {
        this.#checkRange(answer, blob, start + filled, end);
        for await (const chunk of answer.chunks()) {
          if (filled + chunk.length > into.length) throw tooLong(this.#api.where, blob);
          into.set(chunk, filled);
          filled += chunk.length;
          traffic.bytes += chunk.length;
          transfer.progress(chunk.length);
          options.onBytes?.(chunk.length, into);
        }
        if (filled < into.length) throw truncated(this.#api.where, blob);
      } catch (error) {
        transfer.broke(error);
      }
    }
    return into;
  }

  /** The blob from `start` to its end, resumed after breaks; verified at the end when `start` is 0. */
  async *stream(
    blob: Descriptor,
    start: number,
    traffic: Traffic,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    if (start < 0 || start > blob.size) throw new RangeError(`byte ${start} of a blob of ${blob.size}`);
    const hasher = start === 0 ? new Bun.CryptoHasher("sha256") : undefined;
    const transfer = new Transfer(this.#api, signal);
    let at = start;
    while (at < blob.size) {
      const answer = transfer.begin(await this.#open(blob, at, blob.size, traffic, transfer));
      try {
        let skip = this.#toSkip(answer, blob, at, start);
        for await (const whole of answer.chunks()) {
          traffic.bytes += whole.length;
          transfer.progress(whole.length);
          const chunk = skip === 0 ? whole : whole.subarray(Math.min(skip, whole.length));
          skip -= whole.length - chunk.length;
          if (chunk.length === 0) continue;
          if (at + chunk.length > blob.size) throw tooLong(this.#api.where, blob);
          hasher?.update(chunk);
          at += chunk.length;
          yield chunk;
        }
        if (at < blob.size) throw truncated(this.#api.where, blob);
      } catch (error) {
        transfer.broke(error);
      }
    }
    if (hasher === undefined || `sha256:${hasher.digest("hex")}` === blob.digest) return;
    if (transfer.mirrored) this.doubt(blob);
    throw mismatch(this.#api.where, blob);
  }

  /** What came of this blob was wrong: mirrors are not asked for it any more. */
  doubt(blob: Descriptor): void {
    this.#mirrors.doubt(blob.digest);
  }

  /** An answer that holds the wanted bytes, 206 or 200: a mirror's, or the registry's. */
  async #open(
    blob: Descriptor,
    start: number,
    end: number,
    traffic: Traffic,
    { signal, order }: Transfer,
  ): Promise<Supply> {
    const whole = start === 0 && end === blob.size;
    const headers: Record<string, string> = whole ? {} : { Range: `bytes=${start}-${end - 1}` };
    const { where } = this.#api;
    const mirrored = await this.#mirrors.open({
      where,
      digest: blob.digest,
      headers,
      order,
      signal,
      traffic,
    });
    if (mirrored !== undefined) return mirrored;
    this.#refusals.check(blob.digest);
    const request = {
      method: "GET" as const,
      path: `blobs/${blob.digest}`,
      headers,
      name: blobName(where, blob),
      accept: [200, 206, 416],
      traffic,
      signal,
      order,
      persistent: true,
    };
    const known = this.#target(blob.digest);
    const kept = known === undefined ? undefined : await this.#askTarget(known, blob, request);
    if (kept !== undefined) return { answer: this.#satisfied(kept, blob) };
    const resolved = await this.#api.ask(request).catch((error: unknown) => {
      this.#refusals.remember(blob.digest, error);
      throw error;
    });
    this.#remember(blob.digest, resolved);
    return { answer: this.#satisfied(resolved.answer, blob) };
  }

  /** Asks where an earlier redirect led; `undefined` when that is over or fails, and the registry must say anew. */
  async #askTarget(known: URL, blob: Descriptor, request: ApiRequest): Promise<Answer | undefined> {
    try {
      const { answer } = await this.#api.askElsewhere(known, request);
      if (request.accept.includes(answer.status)) return answer;
      answer.discard();
    } catch (error) {
      if (!isPassing(error)) throw error;
    }
    this.#targets.delete(blob.digest);
    return undefined;
  }

  #satisfied(answer: Answer, blob: Descriptor): Answer {
    if (answer.status !== 416) return answer;
    answer.discard();
    throw tooShort(this.#api.where, blob);
  }

  #target(digest: string): URL | undefined {
    const kept = this.#targets.get(digest);
    if (kept === undefined) return undefined;
    if (this.#api.clock.now() < kept.endsAtMs) return kept.url;
    this.#targets.delete(digest);
    return undefined;
  }

  #remember(digest: string, { elsewhere }: ApiAnswer): void {
    if (elsewhere === undefined) return;
    const nowMs = this.#api.clock.now();
    const endsAtMs = redirectEndsAt(elsewhere, nowMs);
    if (endsAtMs <= nowMs) return;
    if (this.#targets.size >= targetsMax) this.#targets.clear();
    this.#targets.set(digest, { url: elsewhere, endsAtMs });
  }

  /** A 206 for these very bytes, or a 200 where the whole was asked for. */
  #checkRange(answer: Answer, blob: Descriptor, start: number, end: number): void {
    if (answer.status === 200) {
      if (start !== 0 || end !== blob.size) {
        answer.discard();
        throw noRanges(this.#api.where, blob);
      }
      this.#checkLength(answer, blob);
      return;
    }
    const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(
      answer.headers.get("content-range") ?? "",
    );
    const sizeFits = match?.[3] === "*" || Number(match?.[3]) === blob.size;
    if (match !== null && sizeFits && Number(match[1]) === start && Number(match[2]) === end - 1) return;
    answer.discard();
    throw misbehaved(this.#api.where, blob, "it sent another range than the one asked for");
  }

  /** How many bytes of the answer were had before: none of a range, all of them when a resumed transfer starts anew. */
  #toSkip(answer: Answer, blob: Descriptor, at: number, start: number): number {
    if (answer.status === 200 && at > 0) {
      if (start === 0) return at;
      answer.discard();
      throw noRanges(this.#api.where, blob);
    }
    this.#checkRange(answer, blob, at, blob.size);
    return 0;
  }

  #checkLength(answer: Answer, blob: Descriptor): void {
    const length = answer.length;
    if (length === undefined || length === blob.size) return;
    answer.discard();
    throw length < blob.size ? truncated(this.#api.where, blob) : tooLong(this.#api.where, blob);
  }
}
