import type { ImageUser } from "./image-access.ts";
import type { ImageMounting, MountRequest } from "./image-mounting.ts";

/** How long a hand-over may take to follow: longer than a control plane tries to get an authorization. */
const handOverWithinMs = 15_000;
const preparedMax = 64;

type Attempt = Pick<ImageUser, "containerId" | "attempt">;

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
  readonly #undoing = new Set<Promise<void>>();

  /** @param withinMs when no hand-over has followed by then, it is undone */
  constructor(begin: (request: MountRequest) => ImageMounting, withinMs = handOverWithinMs) {
    this.#begin = begin;
    this.#withinMs = withinMs;
  }

  /** Begins to mount; does nothing when that was done, or when too many are waited for. */
  prepare(request: MountRequest & Attempt): void {
    const { containerId, attempt } = request;
    const known = this.#prepared.get(containerId);
    if (known !== undefined && known.attempt >= attempt) return;
    if (known === undefined && this.#prepared.size >= preparedMax) return;
    this.#undo(containerId);
    const mounting = this.#begin(request);
    const timer = setTimeout(() => this.#undo(containerId), this.#withinMs);
    this.#prepared.set(containerId, { attempt, mounting, timer });
  }

  /** What was begun for a container, now the caller's. What was begun for an attempt before is undone. */
  take({ containerId, attempt }: Attempt): ImageMounting | undefined {
    const known = this.#prepared.get(containerId);
    if (known === undefined || known.attempt > attempt) return undefined;
    if (known.attempt < attempt) {
      this.#undo(containerId);
      return undefined;
    }
    clearTimeout(known.timer);
    this.#prepared.delete(containerId);
    return known.mounting;
  }

  /** No hand-over will follow: undoes what was begun for this attempt, or for one before it. */
  drop({ containerId, attempt }: Attempt): void {
    if ((this.#prepared.get(containerId)?.attempt ?? Number.POSITIVE_INFINITY) <= attempt)
      this.#undo(containerId);
  }

  /** Undoes what nobody took. Resolves when all is undone, also what was given up before. */
  async close(): Promise<void> {
    for (const containerId of [...this.#prepared.keys()]) this.#undo(containerId);
    await Promise.all(this.#undoing);
  }

  #undo(containerId: string): void {
    const known = this.#prepared.get(containerId);
    if (known === undefined) return;
    clearTimeout(known.timer);
    this.#prepared.delete(containerId);
    const undoing = known.mounting.abandon();
    this.#undoing.add(undoing);
    void undoing.then(() => this.#undoing.delete(undoing));
  }
}
