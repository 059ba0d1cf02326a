import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdCompressSync } from "bun";
import type { TestBlob } from "../index/image-index.test-kit.ts";
import { buildImageIndex } from "../index/image-index.ts";
import { indexLayerStream } from "../index/layer-index.ts";
import { defaultIndexLimits } from "../index/limits.ts";
import { IndexStore, type OpenedImageIndex } from "../index/store.ts";
import { type TestEntry, tarTestLayer } from "../index/tree-layers.test-kit.ts";
import type { BlobSource, ReadOptions } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { RegistryError } from "../registry/error.ts";
import { parseImageConfig } from "../registry/image-config.ts";
import type { LazyImage } from "./lazy-image.ts";
import { type AcquireOptions, LazyMounts, type LazyMountsOptions } from "./lazy-mount.ts";
import type { TransportChoice } from "./transport.ts";

const never = new AbortController().signal;
const where = { registry: "registry.test", repository: "app" };

export const MiB = 1024 * 1024;

/** How rooms mount unless a test says otherwise. */
let transport: TransportChoice = "auto";

/** From now on rooms mount in this way: the same tests hold for each. */
export function useTransport(choice: TransportChoice): void {
  transport = choice;
}

/** Blobs in memory, as a registry gives them out, with the faults that a test asks for. */
export class TestSource implements BlobSource {
  readonly blobs: Map<string, Uint8Array>;
  /** Every ranged read that was asked for. */
  readonly reads: { readonly digest: string; readonly start: number; readonly end: number }[] = [];
  readonly streams: string[] = [];
  ranges = true;
  /** Stands in the way of each ranged read: may wait, throw, or give other bytes. */
  beforeRead: (bytes: Uint8Array, signal: AbortSignal) => Promise<Uint8Array> | Uint8Array = (bytes) => bytes;
  /** Sends bytes of a ranged read ahead of the rest, by the options' `onBytes`. */
  onTheWay: ((bytes: Uint8Array, options: ReadOptions, signal: AbortSignal) => Promise<void>) | undefined;
  /** Stands in the way of each chunk of a stream. */
  beforeChunk: (chunk: Uint8Array, signal: AbortSignal) => Promise<Uint8Array> | Uint8Array = (chunk) =>
    chunk;
  #bytes = 0;

  constructor(blobs = new Map<string, Uint8Array>()) {
    this.blobs = blobs;
  }

  async read(
    layer: Descriptor,
    start: number,
    end: number,
    signal: AbortSignal,
    options: ReadOptions = {},
  ): Promise<Uint8Array> {
    this.reads.push({ digest: layer.digest, start, end });
    if (!this.ranges) throw new RegistryError("range_unsupported", "the registry has no ranged reads", where);
    const whole = this.#blob(layer).slice(start, end);
    await this.onTheWay?.(whole, options, signal);
    const bytes = await this.beforeRead(whole, signal);
    this.#bytes += bytes.length;
    return bytes;
  }

  async *stream(layer: Descriptor, start: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    this.streams.push(layer.digest);
    const blob = this.#blob(layer);
    for (let at = start; at < blob.length; at += 100_000) {
      const chunk = await this.beforeChunk(blob.slice(at, at + 100_000), signal);
      this.#bytes += chunk.length;
      yield chunk;
    }
  }

  stats() {
    return { requests: this.reads.length + this.streams.length, bytes: this.#bytes };
  }

  #blob(layer: Descriptor): Uint8Array {
    const blob = this.blobs.get(layer.digest);
    if (blob === undefined) throw new RegistryError("not_found", `no blob ${layer.digest}`, where);
    return blob;
  }
}

export interface TestImage {
  readonly opened: OpenedImageIndex;
  readonly source: TestSource;
  /** What each file holds, by path. */
  readonly files: ReadonlyMap<string, Buffer>;
}

export type TestCompression = "none" | "gzip" | "zstd";

/** A folder with an index store, a cache, and mounts of it, which {@link TestRoom.end} takes away. */
export class TestRoom {
  readonly dir: string;
  readonly #store: IndexStore;
  readonly #mounts: LazyMounts[] = [];

  private constructor(dir: string, store: IndexStore) {
    this.dir = dir;
    this.#store = store;
  }

  static async create(): Promise<TestRoom> {
    const dir = await mkdtemp(join(tmpdir(), "oci-node-mount-"));
    return new TestRoom(dir, await IndexStore.open(join(dir, "index")));
  }

  openIndex(manifestDigest: string, sha256: string): Promise<OpenedImageIndex> {
    return this.#store.openImage(manifestDigest, sha256);
  }

  async mounts(options: Partial<LazyMountsOptions> = {}): Promise<LazyMounts> {
    const mounts = await LazyMounts.create({
      stateDir: join(this.dir, "state"),
      cacheDir: join(this.dir, "cache"),
      transport,
      ...options,
    });
    this.#mounts.push(mounts);
    return mounts;
  }

  async end(): Promise<void> {
    for (const mounts of this.#mounts) {
      await mounts.close();
    }
    // What needs no process outlives close(): a successor clears it.
    const last = await LazyMounts.create({
      stateDir: join(this.dir, "state"),
      cacheDir: join(this.dir, "cache"),
      transport: "auto",
    });
    await last.clearStale();
    await last.close();
    const left = (await readFile("/proc/self/mountinfo", "utf8"))
      .split("\n")
      .filter((line) => line.includes(this.dir));
    if (left.length > 0) throw new Error(`mounts were left: ${left.join("; ")}`);
    await rm(this.dir, { recursive: true, force: true });
  }

  /** Builds an image of layers as they are, in this process. */
  imageOfBlobs(layers: readonly TestBlob[]): Promise<TestImage> {
    const source = new TestSource();
    const descriptors = layers.map(({ bytes, mediaType, annotations }) => ({
      ...addBlob(source, bytes, mediaType),
      ...(annotations === undefined ? {} : { annotations }),
    }));
    return this.#build(source, descriptors, new Map());
  }

  /** Builds an image of layers of files (path → bytes), in this process. */
  async image(
    layers: readonly Readonly<Record<string, Buffer>>[],
    compression: TestCompression = "gzip",
  ): Promise<TestImage> {
    const source = new TestSource();
    const files = new Map<string, Buffer>();
    const descriptors = layers.map((layer) => {
      const entries = Object.entries(layer).map(([path, content]): TestEntry => {
        files.set(path, content);
        return { path, type: "file", content };
      });
      return addBlob(source, compress(tarTestLayer(entries), compression), mediaType(compression));
    });
    return await this.#build(source, descriptors, files);
  }

  async #build(
    source: TestSource,
    descriptors: readonly Descriptor[],
    files: ReadonlyMap<string, Buffer>,
  ): Promise<TestImage> {
    const configBytes = Buffer.from(JSON.stringify({ os: "linux", architecture: "amd64", salt: this.dir }));
    const manifestBytes = Buffer.from(JSON.stringify(descriptors));
    const { index, sha256 } = await buildImageIndex({
      repository: "registry.test/app",
      resolved: {
        manifest: { mediaType: "m", digest: digestOf(manifestBytes), size: manifestBytes.length },
        config: { mediaType: "c", digest: digestOf(configBytes), size: configBytes.length },
        layers: descriptors,
        manifestBytes,
        configBytes,
        imageConfig: parseImageConfig(JSON.parse(configBytes.toString())),
      },
      source,
      store: this.#store,
      scratchDir: join(this.dir, "scratch"),
      indexLayer: (layer, bytes, out, signal) =>
        indexLayerStream(layer, bytes, out, defaultIndexLimits, signal),
      signal: never,
    });
    source.streams.length = 0;
    source.reads.length = 0;
    return { opened: await this.#store.openImage(index.manifestDigest, sha256), source, files };
  }
}

/** Acquires with defaults: nothing but what is read is fetched. */
export function acquire(
  mounts: LazyMounts,
  image: TestImage,
  options: Partial<AcquireOptions> = {},
): Promise<LazyImage> {
  return mounts.acquire({
    workspace: "ws",
    index: image.opened,
    source: image.source,
    background: false,
    eager: false,
    signal: never,
    ...options,
  });
}

/** Bytes that do not compress. */
export function noise(bytes: number): Buffer {
  return randomBytes(bytes);
}

/** Mounts below a folder, as the kernel lists them. */
export async function mountsBelow(dir: string): Promise<string[]> {
  return (await readFile("/proc/self/mountinfo", "utf8")).split("\n").filter((line) => line.includes(dir));
}

function addBlob(source: TestSource, bytes: Uint8Array, type: string): Descriptor {
  const digest = digestOf(bytes);
  source.blobs.set(digest, new Uint8Array(bytes));
  return { mediaType: type, digest, size: bytes.length };
}

function compress(tar: Buffer, compression: TestCompression): Uint8Array {
  if (compression === "gzip") {
    // Not 1: at that level the whole stream may be one block, which cannot be entered in the middle.
    return Bun.gzipSync(new Uint8Array(tar), { level: 2 });
  }
  if (compression === "zstd") return zstdCompressSync(tar, { level: 1 });
  return tar;
}

function mediaType(compression: TestCompression): string {
  return `application/vnd.oci.image.layer.v1.tar${compression === "none" ? "" : `+${compression}`}`;
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** What a file of an image holds. */
export function contentOf(made: TestImage, path: string): Uint8Array {
  return new Uint8Array(made.files.get(path) ?? []);
}

/** Reads a file without keeping this thread, which has to answer the misses, from its work. */
export async function contentAt(path: string): Promise<Uint8Array> {
  return new Uint8Array(await readFile(path));
}

/** Waits for something that other code brings about, looking at each turn of the event loop. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}
