import { MountError } from "./error.ts";
import type { MountedImage } from "./mounted-image.ts";

/**
 * A mount and the count of those who use it: opened once for all who come while it opens, closed when the last has gone.
 */
export class SharedMount {
  readonly root: string;
  readonly #opening: Promise<MountedImage>;
  readonly #abandoned = new AbortController();
  readonly #gone: () => void;
  #image: MountedImage | undefined;
  #users = 0;
  #closing: Promise<void> | undefined;

  /**
   * @param open mounts, or throws and leaves nothing; its signal fires when nobody waits for it any more
   * @param gone called once the mount is no more, or never was
   */
  constructor(root: string, open: (signal: AbortSignal) => Promise<MountedImage>, gone: () => void) {
    this.root = root;
    this.#gone = gone;
    this.#opening = open(this.#abandoned.signal).then(
      (image) => {
        this.#image = image;
        return image;
      },
      (thrown: unknown) => {
        this.#gone();
        throw thrown;
      },
    );
    // Whoever joins hears of it; nobody may have.
    this.#opening.catch(() => undefined);
  }

  get image(): MountedImage | undefined {
    return this.#image;
  }

  get users(): number {
    return this.#users;
  }

  /** Set while the mount goes away; rejects when it could not, and then it can be joined again. */
  get closing(): Promise<void> | undefined {
    return this.#closing;
  }

  /** Becomes a user as soon as it is mounted. Who is no longer interested leaves, and the last one undoes. */
  async join(signal: AbortSignal): Promise<MountedImage> {
    this.#users += 1;
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = () =>
      reject(new MountError("cancelled", "mounting was cancelled", { cause: signal.reason }));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      return await Promise.race([this.#opening, aborted]);
    } catch (thrown) {
      await this.leave().catch(() => undefined);
      throw thrown;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Stops being a user. The last one's call resolves when the mount is gone. @throws MountError `busy` */
  async leave(): Promise<void> {
    if (this.#users > 0) this.#users -= 1;
    if (this.#users > 0) return;
    await this.#close((image) => image.close());
  }

  /** Ends the mount whatever its users; one that needs no process stays as it is while it has any. */
  async end(): Promise<void> {
    await this.#close((image) => (this.#users === 0 ? image.close() : image.detach()));
  }

  #close(close: (image: MountedImage) => Promise<void>): Promise<void> {
    this.#closing ??= this.#run(close).catch((thrown: unknown) => {
      this.#closing = undefined;
      throw thrown;
    });
    return this.#closing;
  }

  async #run(close: (image: MountedImage) => Promise<void>): Promise<void> {
    this.#abandoned.abort(new MountError("cancelled", "nobody waits for this mount any more"));
    const image = await this.#opening.catch(() => undefined);
    if (image === undefined) return;
    await close(image);
    this.#gone();
  }
}
