import type { Descriptor } from "./descriptor.ts";
import type { Where } from "./error.ts";
import type { Manifest } from "./manifest.ts";

/** A manifest that was fetched and verified. */
export interface Fetched {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
  readonly manifest: Manifest;
}

const entriesMax = 256;
const sizeBytesMax = 16 * 1024 * 1024;

/**
 * Manifests that were had from registries which count how often they are asked for (Docker Hub). Given out again only after
 * a HEAD, which is not counted, has named their digest to the credential that asks, and only for the same repository.
 */
export class KnownManifests {
  readonly #known = new Map<string, Fetched>();
  #sizeBytes = 0;

  get(where: Where, digest: string): Fetched | undefined {
    return this.#known.get(keyOf(where, digest));
  }

  keep(where: Where, fetched: Fetched): void {
    const key = keyOf(where, fetched.descriptor.digest);
    if (this.#known.has(key)) return;
    this.#known.set(key, fetched);
    this.#sizeBytes += fetched.bytes.length;
    for (const [oldest, { bytes }] of this.#known) {
      if (this.#known.size <= entriesMax && this.#sizeBytes <= sizeBytesMax) break;
      this.#known.delete(oldest);
      this.#sizeBytes -= bytes.length;
    }
  }
}

function keyOf({ registry, repository }: Where, digest: string): string {
  return `${registry}/${repository}@${digest}`;
}
