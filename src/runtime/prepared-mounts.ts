import type { ImageUser } from "./image-access.ts";
import type { ImageMounting, MountRequest } from "./image-mounting.ts";

/** How long a hand-over may take to follow: longer than a control plane tries to get an authorization. */
const handOverWithinMs = 15_000;
const preparedMax = 64;

interface Prepared {
  readonly attempt: number;
  readonly mounting: ImageMounting;
  readonly timer: ReturnType<typeof setTimeout>;
}

/** Images that are being mounted for containers which are yet to be handed over. */
export class PreparedMounts {
  readonly #begin: (request: MountRequest) => ImageMounting;
  readonly #withinMs: number;
  readonly #prepared = new Map<string, Prepared>();

  /** @param withinMs when no hand-over has followed by then, it is undone */
  constructor(begin: (request: MountRequest) => ImageMounting, withinMs = handOverWithinMs) {
    this.#begin = begin;
    this.#withinMs = withinMs;
  }

  /** Begins to mount; does nothing when that was done, or when too many are waited for. */
  prepare(request: MountRequest & Pick<ImageUser, "containerId" | "attempt">): void {
    const { containerId, attempt } = request;
    const known = this.#prepared.get(containerId);
    if (known !== undefined && known.attempt >= attempt) return;
    if (known === undefined && this.#prepared.size >= preparedMax) return;
    this.#drop(containerId);
    const mounting = this.#begin(request);
    const timer = setTimeout(() => this.#drop(containerId), this.#withinMs);
    this.#prepared.set(containerId, { attempt, mounting, timer });
  }

  /** What was begun for a container, now the caller's. */
  take({ containerId, attempt }: Pick<ImageUser, "containerId" | "attempt">): ImageMounting | undefined {
    const known = this.#prepared.get(containerId);
    if (known?.attempt !== attempt) return undefined;
    clearTimeout(known.timer);
    this.#prepared.delete(containerId);
    return known.mounting;
  }

  /** Undoes what nobody took. Resolves when it is undone. */
  async close(): Promise<void> {
    await Promise.all([...this.#prepared.keys()].map((containerId) => this.#drop(containerId)));
  }

  async #drop(containerId: string): Promise<void> {
    const known = this.#prepared.get(containerId);
    if (known === undefined) return;
    clearTimeout(known.timer);
    this.#prepared.delete(containerId);
    await known.mounting.abandon();
  }
}
