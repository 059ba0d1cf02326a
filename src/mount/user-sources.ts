import { CredentialError } from "../credential/error.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { RegistryError, type RegistryErrorCode } from "../registry/error.ts";
import { AwaitedSource } from "./awaited-source.ts";

const refusals: ReadonlySet<RegistryErrorCode> = new Set<RegistryErrorCode>([
  "unauthorized",
  "expired",
  "denied",
  "not_found",
]);

/**
 * The sources of those who share a mount, each with its own credential. One serves until its user leaves or it is refused;
 * then the next does.
 */
export class UserSources {
  readonly #sources: BlobSource[];

  constructor(first: BlobSource) {
    this.#sources = [first];
  }

  /** The one that serves. */
  get current(): BlobSource {
    return this.#sources[0] as BlobSource;
  }

  get all(): readonly BlobSource[] {
    return this.#sources;
  }

  /**
   * Puts a user's source in the place of the one that he had; a new user's behind those of the others. Nobody waits for a
   * user whose source is yet to come while another has one.
   */
  put(source: BlobSource, before?: BlobSource): void {
    for (const other of this.#sources) if (other instanceof AwaitedSource) other.provide(source);
    const at = before === undefined ? -1 : this.#sources.indexOf(before);
    if (at < 0) this.#sources.push(source);
    else this.#sources[at] = source;
  }

  /** Has a source, which may be a new user's, serve before the others. */
  lead(source: BlobSource): void {
    const at = this.#sources.indexOf(source);
    if (at >= 0) this.#sources.splice(at, 1);
    this.#sources.unshift(source);
  }

  /** A user has left. The last one's source stays: whatever still asks must hear something. */
  withdraw(source: BlobSource): void {
    const at = this.#sources.indexOf(source);
    if (at >= 0 && this.#sources.length > 1) this.#sources.splice(at, 1);
  }

  /** Asks the source that serves; where its user left meanwhile, or it is refused, each of the others once. */
  async ask<T>(call: (source: BlobSource) => Promise<T>): Promise<T> {
    const tried = new Set<BlobSource>();
    for (;;) {
      const source = this.current;
      tried.add(source);
      try {
        return await call(source);
      } catch (thrown) {
        if (!this.#giveWay(source, thrown) || tried.has(this.current)) throw thrown;
      }
    }
  }

  /** Whether another source serves after this failure. */
  #giveWay(source: BlobSource, thrown: unknown): boolean {
    if (!this.#sources.includes(source)) return true;
    if (!isRefusal(thrown)) return false;
    if (source === this.current) this.#sources.push(this.#sources.shift() as BlobSource);
    return this.current !== source;
  }
}

/** The credential is at fault: another user's may be better. */
function isRefusal(thrown: unknown): boolean {
  return thrown instanceof CredentialError || (thrown instanceof RegistryError && refusals.has(thrown.code));
}
