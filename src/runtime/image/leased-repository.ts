import type { Lease, LeaseTerm } from "../../credential/lease.ts";
import type { BlobSource, BlobSourceStats, ReadOptions } from "../../registry/blob-source.ts";
import type { Descriptor } from "../../registry/descriptor.ts";
import { isRefusal } from "../../registry/error.ts";
import type { Repository } from "../../registry/repository.ts";

/**
 * A registry's repository, by a lease. What the registry does not take any more is renewed where it is sent; a refusal that
 * comes out all the same is a reason to ask for another term, once for all who read, and to begin anew with it. When that is
 * refused too, it is the reader's error.
 */
export class LeasedRepository implements BlobSource {
  readonly #lease: Lease;
  readonly #open: () => Repository;
  readonly #close: (repository: Repository) => void;
  #current: Repository | undefined;
  /** Of the repositories that were given up. */
  #past: BlobSourceStats = { requests: 0, bytes: 0 };

  /**
   * @param open called when there is a term, and again when what was agreed with the registry counts no more
   * @param close called with what is not used any more
   */
  constructor(lease: Lease, open: () => Repository, close: (repository: Repository) => void) {
    this.#lease = lease;
    this.#open = open;
    this.#close = close;
  }

  /** What was agreed with the registry does not fit what the lease has now, or is needed no more. */
  reopen(): void {
    const given = this.#current;
    this.#past = this.stats();
    this.#current = undefined;
    if (given !== undefined) this.#close(given);
  }

  /** Asks the repository, and once more where a refusal brought another term. */
  async use<T>(call: (repository: Repository) => Promise<T>, signal: AbortSignal): Promise<T> {
    const repository = await this.#opened(signal);
    const term = this.#lease.term;
    try {
      return await call(repository);
    } catch (thrown) {
      await this.#renewed(repository, term, thrown, signal);
      return await call(await this.#opened(signal));
    }
  }

  read(
    layer: Descriptor,
    start: number,
    end: number,
    signal: AbortSignal,
    options?: ReadOptions,
  ): Promise<Uint8Array> {
    return this.use((repository) => repository.openBlob(layer, start, end, signal, options), signal);
  }

  async *stream(layer: Descriptor, start: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    let at = start;
    for (let renewedAt = -1; ; renewedAt = at) {
      const repository = await this.#opened(signal);
      const term = this.#lease.term;
      try {
        for await (const chunk of repository.streamBlob(layer, at, signal)) {
          at += chunk.length;
          yield chunk;
        }
        return;
      } catch (thrown) {
        if (renewedAt === at) throw thrown;
        await this.#renewed(repository, term, thrown, signal);
      }
    }
  }

  doubt(layer: Descriptor): void {
    this.#current?.doubtBlob(layer);
  }

  stats(): BlobSourceStats {
    const { requests, bytes } = this.#current?.traffic() ?? { requests: 0, bytes: 0 };
    return { requests: this.#past.requests + requests, bytes: this.#past.bytes + bytes };
  }

  async #opened(signal: AbortSignal): Promise<Repository> {
    if (this.#current !== undefined) return this.#current;
    await this.#lease.authorization(signal);
    this.#current ??= this.#open();
    return this.#current;
  }

  /** Resolves when there is something else to try than what was refused; throws what is the reader's error otherwise. */
  async #renewed(
    repository: Repository,
    term: LeaseTerm | undefined,
    thrown: unknown,
    signal: AbortSignal,
  ): Promise<void> {
    if (!isRefusal(thrown)) throw thrown;
    if (this.#current !== repository) return;
    // A new term that came meanwhile was tried by the session, which asks for it when it is refused.
    if (this.#lease.term !== term) throw thrown;
    await this.#lease.authorization(signal, true);
    if (this.#lease.term === term) throw thrown;
    if (this.#current === repository) this.reopen();
  }
}
