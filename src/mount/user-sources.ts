import { CredentialError } from "../credential/error.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { isRefusal, RegistryError } from "../registry/error.ts";
import { AwaitedSource, GivenWay } from "./awaited-source.ts";

/**
 * The sources of those who share a mount, each with its own credential. One serves until its user leaves or it is refused;
 * then the next does. Nobody waits for a user whose source is yet to come while another has one.
 */
export class UserSources {
  readonly #sources: BlobSource[];
  readonly #supplied = Promise.withResolvers<void>();

  constructor(first: BlobSource) {
    this.#sources = [first];
    this.#watch(first);
  }

  /** The one that serves; when there is none, one that is yet to come. */
  get current(): BlobSource {
    const waiting = (source: BlobSource) => source instanceof AwaitedSource && source.state === "pending";
    return this.#ready ?? this.#sources.find(waiting) ?? (this.#sources[0] as BlobSource);
  }

  get all(): readonly BlobSource[] {
    return this.#sources;
  }

  /** Resolves when there is one that serves; `undefined`: there is. */
  get supplied(): Promise<void> | undefined {
    return this.#ready === undefined ? this.#supplied.promise : undefined;
  }

  /** Puts a user's source in the place of the one that he had; a new user's behind those of the others. */
  put(source: BlobSource, before?: BlobSource): void {
    const at = before === undefined ? -1 : this.#sources.indexOf(before);
    if (at < 0) this.#sources.push(source);
    else this.#sources[at] = source;
    if (before instanceof AwaitedSource && before !== source) before.provide(source);
    this.#watch(source);
  }

  /** Has a source, which may be a new user's, serve before the others. */
  lead(source: BlobSource): void {
    const at = this.#sources.indexOf(source);
    if (at >= 0) this.#sources.splice(at, 1);
    this.#sources.unshift(source);
    this.#watch(source);
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
        if (thrown instanceof GivenWay) tried.delete(source);
        else if (!this.#passOn(source, thrown) || tried.has(this.current)) throw thrown;
      }
    }
  }

  get #ready(): BlobSource | undefined {
    return this.#sources.find((source) => !(source instanceof AwaitedSource) || source.state === "provided");
  }

  #watch(source: BlobSource): void {
    this.#wake();
    if (source instanceof AwaitedSource && source.state === "pending")
      void source.settled.then(() => this.#wake());
  }

  /** Where somebody serves, nobody waits for what is yet to come. */
  #wake(): void {
    if (this.#ready === undefined) return;
    this.#supplied.resolve();
    for (const source of this.#sources)
      if (source instanceof AwaitedSource && source.state === "pending") source.giveWay();
  }

  /** Whether another source serves after this failure. */
  #passOn(source: BlobSource, thrown: unknown): boolean {
    const at = this.#sources.indexOf(source);
    if (at < 0) return true;
    const withdrawn = source instanceof AwaitedSource && source.state === "withdrawn";
    if (!withdrawn && !isOfCredential(thrown)) return false;
    if (source === this.current) this.#sources.push(...this.#sources.splice(at, 1));
    return this.current !== source;
  }
}

/** Another user's credential may be better: some registries say of what it must not see that it is not there. */
function isOfCredential(thrown: unknown): boolean {
  if (thrown instanceof CredentialError || isRefusal(thrown)) return true;
  return thrown instanceof RegistryError && thrown.code === "not_found";
}
