import { mkdir, readdir, readFile, rename, rm, utimes } from "node:fs/promises";
import { join } from "node:path";
import { isDigest } from "../reference/digest.ts";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { errnoOf } from "../std/error.ts";
import { makePrivateFolder } from "../std/private-folder.ts";
import { IndexError, writeError } from "./error.ts";
import { decodeImageIndex, encodeImageIndex, imageIndexSha256 } from "./image-index-json.ts";
import { besideName, FileHashes, moveFile, verifyFile } from "./store-file.ts";
import { ignoreMissing, isOlder, modified, removeFolder } from "./store-folder.ts";
import {
  decodeLayerFacts,
  type LayerFacts,
  type LayerName,
  type LayerPaths,
  readLayerFacts,
} from "./store-layer.ts";
import { TraceStore } from "./trace-store.ts";
import type { ImageIndex, IndexedLayer } from "./types.ts";

/** Layers used by a build within this time are kept, whether or not an image names them yet. */
const unusedLayerMs = 60 * 60 * 1000;
const imageNamePattern = /^([0-9a-f]{64})-([0-9a-f]{64})$/;
const layerNamePattern = /^[0-9a-f]{64}(\.[0-9a-f]{64})?$/;
const sha256Pattern = /^[0-9a-f]{64}$/;

/** An image's index whose files were verified. */
export interface OpenedImageIndex {
  readonly index: ImageIndex;
  /** SHA-256 (hex) of the index's text. */
  readonly sha256: string;
  /** The EROFS image. */
  readonly erofsPath: string;
  /** In the order of the index's layers: device `n + 1` is the blob of `layers[n]`. */
  readonly layers: readonly OpenedLayer[];
}

export interface OpenedLayer extends IndexedLayer {
  readonly spanPath: string;
}

/** A layer that is in the store, its files as its facts say. */
export interface StoredLayer extends LayerFacts, LayerPaths {
  /** SHA-256 (hex) of its facts as they stand in `layer.json`: who remembers it knows the layer's whole index again. */
  readonly factsSha256: string;
}

export interface StoredImage {
  readonly sha256: string;
  readonly index: ImageIndex;
}

/**
 * Indexes of layers and images in a directory that several processes may use at once.
 *
 * ```
 * layers/sha256/HEX/{spans,toc,layer.json}       by the layer's digest, shared by all images and repositories
 * layers/sha256/HEX.HEX/…                        the same, made from the table of contents with the second digest
 * images/sha256/MANIFEST-INDEX/{image.json,erofs} by the manifest's digest and the SHA-256 of image.json
 * traces/…                                       what starts of images read: see TraceStore
 * ```
 *
 * Everything is written aside and renamed in, and named by what it holds: two writers of the same thing do not disturb
 * each other, and a file that was damaged is replaced by the next build. Nothing here is a credential, and nothing
 * here says who may use an image.
 */
export class IndexStore {
  readonly traces: TraceStore;
  readonly #layers: string;
  readonly #images: string;
  readonly #hashes = new FileHashes();

  private constructor(directory: string) {
    this.traces = new TraceStore(join(directory, "traces"));
    this.#layers = join(directory, "layers", "sha256");
    this.#images = join(directory, "images", "sha256");
  }

  /** Opens the store, makes its directories, and removes what interrupted writers left behind. */
  static async open(directory: string): Promise<IndexStore> {
    const store = new IndexStore(directory);
    // What files private images have, and what their starts read, is nobody's on this host who is not of the store's group.
    for (const name of ["layers", "images", "traces"]) await makePrivateFolder(join(directory, name));
    for (const folder of [store.#layers, store.#images]) {
      await mkdir(folder, { recursive: true });
      for (const name of await readdir(folder)) {
        const path = join(folder, name);
        if (name.includes(".tmp-") && (await isOlder(path, unusedLayerMs)))
          await rm(path, { recursive: true, force: true });
      }
    }
    return store;
  }

  /** Where a layer's index is, or would be. */
  layerPaths(name: LayerName): LayerPaths {
    const folder = this.#layerFolder(name);
    return { spanPath: join(folder, "spans"), tocPath: join(folder, "toc") };
  }

  /** Whether the store has the layer, whole; see {@link IndexStore.layer}. */
  async hasLayer(name: LayerName): Promise<boolean> {
    return (await this.layer(name)) !== undefined;
  }

  /** The layer when the store has it with every byte as written. It is kept for the next hour, named or not. */
  async layer(name: LayerName): Promise<StoredLayer | undefined> {
    const folder = this.#layerFolder(name);
    const found = await this.#layerFacts(name);
    if (found === undefined) return undefined;
    const { facts, factsSha256 } = found;
    const paths = this.layerPaths(name);
    if ((await this.#hashes.sha256(paths.spanPath)) !== facts.spanSha256) return undefined;
    if ((await this.#hashes.sha256(paths.tocPath)) !== facts.tocSha256) return undefined;
    const now = new Date();
    await utimes(folder, now, now).catch(ignoreMissing);
    return { ...facts, ...paths, factsSha256 };
  }

  /**
   * Takes in a layer's index; the files are moved from where they are. A whole one that is there already stays, if it is
   * the same, or one that the caller has reason to keep.
   *
   * @param isKept whether another one than this, just as whole, may stay; default: any
   * @throws IndexError `digest_mismatch` when the index is of another layer, `corrupt_index`, `no_space`
   */
  async commitLayer(
    name: LayerName,
    from: LayerPaths,
    isKept: (present: StoredLayer) => boolean = () => true,
  ): Promise<StoredLayer> {
    const present = await this.layer(name);
    if (present !== undefined && isKept(present)) return present;
    const hashes = {
      span: (await this.#hashes.sha256(from.spanPath)) ?? "",
      toc: (await this.#hashes.sha256(from.tocPath)) ?? "",
    };
    const facts = await readLayerFacts(name, from, hashes);
    const text = JSON.stringify(facts);
    const factsSha256 = textSha256(text);
    if (present?.factsSha256 === factsSha256) return present;
    await this.#moveIn(this.#layerFolder(name), [
      ["spans", from.spanPath],
      ["toc", from.tocPath],
      ["layer.json", text],
    ]);
    return { ...facts, ...this.layerPaths(name), factsSha256 };
  }

  /**
   * Takes in an image's index and its EROFS image, which is moved. All its layers must be there.
   *
   * @returns the SHA-256 (hex) of the index's text, by which {@link IndexStore.openImage} knows it again
   * @throws IndexError `corrupt_index` when the EROFS image or a layer is not the one that the index names
   */
  async putImage(index: ImageIndex, erofsPath: string): Promise<{ readonly sha256: string }> {
    const sha256 = imageIndexSha256(index);
    await verifyFile(this.#hashes, erofsPath, index.erofsSha256);
    await this.#moveIn(this.#imageFolder(index.manifestDigest, sha256), [
      ["erofs", erofsPath],
      ["image.json", encodeImageIndex(index)],
    ]);
    for (const layer of index.layers) {
      const found = await this.#layerFacts(layer);
      if (found?.facts.spanSha256 === layer.spanSha256) continue;
      await this.removeImage(index.manifestDigest, sha256);
      throw new IndexError(
        "corrupt_index",
        `the index of layer ${layer.digest} went away while the image was built`,
        {
          next: "Build the image again.",
        },
      );
    }
    return { sha256 };
  }

  /**
   * Opens an image's index after verifying its text, its EROFS image and the span file of every layer. Without
   * `expectedSha256`, the latest index of the manifest is taken. `mounted`: the kernel has the EROFS image already, so what
   * its file says now does not matter and is not looked at.
   *
   * @throws IndexError `not_found`; `corrupt_index`, which names the file that is damaged or missing
   */
  async openImage(
    manifestDigest: string,
    expectedSha256?: string,
    options: { readonly mounted?: boolean } = {},
  ): Promise<OpenedImageIndex> {
    const sha256 = expectedSha256 ?? (await this.#latest(manifestDigest));
    const folder = this.#imageFolder(manifestDigest, sha256);
    const textPath = join(folder, "image.json");
    if ((await modified(folder)) === undefined) throw noImage(manifestDigest);
    await verifyFile(this.#hashes, textPath, sha256);
    const index = decodeImageIndex(await readFile(textPath, "utf8"), textPath);
    if (index.manifestDigest !== manifestDigest) {
      throw new IndexError("corrupt_index", `${textPath} is the index of another image`, {
        next: "Build the image again.",
      });
    }
    const erofsPath = join(folder, "erofs");
    if (options.mounted !== true) await verifyFile(this.#hashes, erofsPath, index.erofsSha256);
    const layers: OpenedLayer[] = [];
    for (const layer of index.layers) {
      const { spanPath } = this.layerPaths(layer);
      await verifyFile(this.#hashes, spanPath, layer.spanSha256);
      layers.push({ ...layer, spanPath });
    }
    return { index, sha256, erofsPath, layers };
  }

  /** Every image index that can be read, in no order. The large files are not verified. */
  async list(): Promise<StoredImage[]> {
    const images: StoredImage[] = [];
    for (const name of await readdir(this.#images)) {
      const sha256 = imageNamePattern.exec(name)?.[2];
      if (sha256 === undefined) continue;
      const path = join(this.#images, name, "image.json");
      try {
        images.push({ sha256, index: decodeImageIndex(await readFile(path, "utf8"), path) });
      } catch (error) {
        if (!(error instanceof IndexError)) ignoreMissing(error);
      }
    }
    return images;
  }

  /**
   * Removes an image's indexes, or the one with that SHA-256, with the last one its traces, and the layers that no image
   * names any more. Layers that a build used within the last hour are kept. What is mounted stays usable: files that are open outlive their names.
   */
  async removeImage(manifestDigest: string, sha256?: string): Promise<void> {
    const hex = hexOf(manifestDigest);
    let others = 0;
    for (const name of await readdir(this.#images)) {
      const match = imageNamePattern.exec(name);
      if (match?.[1] !== hex) continue;
      if (sha256 === undefined || match[2] === sha256) await removeFolder(join(this.#images, name));
      else others += 1;
    }
    if (others === 0) await this.traces.remove(manifestDigest);
    await this.#removeUnusedLayers();
  }

  async #removeUnusedLayers(): Promise<void> {
    const used = new Set(
      (await this.list()).flatMap(({ index }) => index.layers.map((layer) => this.#layerFolder(layer))),
    );
    for (const name of await readdir(this.#layers)) {
      const path = join(this.#layers, name);
      if (layerNamePattern.test(name) && !used.has(path) && (await isOlder(path, unusedLayerMs)))
        await removeFolder(path);
    }
  }

  async #latest(manifestDigest: string): Promise<string> {
    const hex = hexOf(manifestDigest);
    let latest: { sha256: string; time: number } | undefined;
    for (const name of await readdir(this.#images)) {
      const match = imageNamePattern.exec(name);
      if (match?.[1] !== hex) continue;
      const time = await modified(join(this.#images, name));
      if (latest === undefined || (time ?? 0) > latest.time)
        latest = { sha256: match[2] ?? "", time: time ?? 0 };
    }
    if (latest === undefined) throw noImage(manifestDigest);
    return latest.sha256;
  }

  async #layerFacts(name: LayerName) {
    try {
      const text = await readFile(join(this.#layerFolder(name), "layer.json"), "utf8");
      const facts = decodeLayerFacts(text);
      if (facts?.digest !== name.digest || facts.tocDigest !== name.tocDigest) return undefined;
      return { facts, factsSha256: textSha256(text) };
    } catch (error) {
      return ignoreMissing(error);
    }
  }

  /** Makes a folder with these files (a path to move from, or JSON text), or replaces the files of the one there. */
  async #moveIn(folder: string, files: readonly (readonly [name: string, from: string])[]): Promise<void> {
    const beside = besideName(folder);
    try {
      await mkdir(beside);
      for (const [name, from] of files) {
        if (name.endsWith(".json")) await writeFileAtomic(join(beside, name), from);
        else await moveFile(from, join(beside, name));
      }
      try {
        await rename(beside, folder);
      } catch (error) {
        if (errnoOf(error) !== "ENOTEMPTY" && errnoOf(error) !== "EEXIST") throw error;
        for (const [name] of files) await rename(join(beside, name), join(folder, name));
      }
    } catch (error) {
      throw writeError(folder, error);
    } finally {
      await rm(beside, { recursive: true, force: true });
    }
  }

  #layerFolder({ digest, tocDigest }: LayerName): string {
    const suffix = tocDigest === undefined ? "" : `.${hexOf(tocDigest)}`;
    return join(this.#layers, `${hexOf(digest)}${suffix}`);
  }

  #imageFolder(manifestDigest: string, sha256: string): string {
    if (!sha256Pattern.test(sha256))
      throw new IndexError("not_found", "an index is named by 64 hexadecimal digits");
    return join(this.#images, `${hexOf(manifestDigest)}-${sha256}`);
  }
}

function textSha256(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}

function hexOf(digest: string): string {
  if (!isDigest(digest))
    throw new IndexError("not_found", `${JSON.stringify(digest.slice(0, 100))} is no digest`);
  return digest.slice("sha256:".length);
}

function noImage(manifestDigest: string): IndexError {
  return new IndexError("not_found", `the index of image ${manifestDigest} is not in the store`, {
    next: "Build the image again. Workers on other hosts need the gateway's index folder: [index] dir.",
  });
}
