import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Stage } from "./stage.ts";

/** A tree mounted by `oci-node mount`, without any node, with its index and bytes in the scratch folder. */
export class LazyTree {
  readonly root: string;
  readonly #stage: Stage;
  readonly #index: string;
  readonly #cache: string;

  /** `name` keeps the folders of several trees apart. */
  constructor(stage: Stage, name: string) {
    this.#stage = stage;
    this.root = join(stage.dir, `${name}-tree`);
    this.#index = join(stage.dir, `${name}-index`);
    this.#cache = join(stage.dir, `${name}-cache`);
  }

  /** Indexes the image at the registry's own speed; gives the seconds that this took. */
  async index(reference: string): Promise<number> {
    const stage = this.#stage;
    // The index holds the address that it is asked for: over the link, whose rate is let go meanwhile.
    await stage.setLink({ delayMs: 0, bytesPerSecond: 0 });
    const indexed = await stage.alone(["index", reference, "--store", this.#index, ...stage.aloneFlags]);
    await stage.setLink();
    return indexed.elapsedMs / 1000;
  }

  /** Mounts it; gives the seconds that this took. */
  async up(reference: string, flags: readonly string[] = []): Promise<number> {
    await mkdir(this.root, { recursive: true });
    const places = ["--index-store", this.#index, "--cache-dir", this.#cache];
    const args = ["mount", reference, this.root, ...places, ...this.#stage.aloneFlags, ...flags];
    return (await this.#stage.alone(args)).elapsedMs / 1000;
  }

  async down(): Promise<void> {
    await this.#stage.alone(["umount", this.root]);
  }

  /** Forgets the bytes, and the index if wanted; nothing may be mounted. */
  async forget(options: { index: boolean } = { index: false }): Promise<void> {
    await rm(this.#cache, { recursive: true, force: true });
    if (options.index) await rm(this.#index, { recursive: true, force: true });
    await this.#stage.chill();
  }
}
