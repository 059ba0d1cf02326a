import { gzipSync } from "node:zlib";
import type { BlobSource } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { parseImageConfig } from "../registry/image-config.ts";
import type { ResolvedImage } from "../registry/repository.ts";
import { type TestLayer, tarTestLayer } from "./tree-layers.test-kit.ts";

/** An image that a test makes up, as a registry would resolve it and serve its layers. */
export interface TestImage {
  readonly resolved: ResolvedImage;
  /** Compressed layers by digest. */
  readonly blobs: ReadonlyMap<string, Uint8Array>;
}

/** A layer as a registry has it. */
export interface TestBlob {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Makes an image of gzip layers. */
export function testImage(layers: readonly TestLayer[]): TestImage {
  const mediaType = "application/vnd.oci.image.layer.v1.tar+gzip";
  return imageOfBlobs(layers.map((layer) => ({ bytes: gzipSync(tarTestLayer(layer)), mediaType })));
}

/** Makes an image of layers as they are. */
export function imageOfBlobs(layers: readonly TestBlob[]): TestImage {
  const blobs = new Map<string, Uint8Array>();
  const descriptors = layers.map(({ bytes, mediaType, annotations }) => {
    const descriptor = {
      ...describe(bytes, mediaType),
      ...(annotations === undefined ? {} : { annotations }),
    };
    blobs.set(descriptor.digest, bytes);
    return descriptor;
  });
  const config = {
    architecture: "amd64",
    os: "linux",
    config: { Cmd: ["/bin/sh"] },
    rootfs: { diff_ids: [] },
  };
  const configBytes = Buffer.from(JSON.stringify(config));
  const configDescriptor = describe(configBytes, "application/vnd.oci.image.config.v1+json");
  const manifestBytes = Buffer.from(JSON.stringify({ config: configDescriptor, layers: descriptors }));
  const resolved: ResolvedImage = {
    manifest: describe(manifestBytes, "application/vnd.oci.image.manifest.v1+json"),
    config: configDescriptor,
    layers: descriptors,
    manifestBytes,
    configBytes,
    imageConfig: parseImageConfig(config),
  };
  return { resolved, blobs };
}

/** Serves blobs from memory in pieces; counts what was asked for. */
export class MemorySource implements BlobSource {
  readonly #blobs: ReadonlyMap<string, Uint8Array>;
  readonly #pieceBytes: number;
  #requests = 0;
  #bytes = 0;

  constructor(blobs: ReadonlyMap<string, Uint8Array>, pieceBytes = 1000) {
    this.#blobs = blobs;
    this.#pieceBytes = pieceBytes;
  }

  async read(layer: Descriptor, start: number, end: number): Promise<Uint8Array> {
    this.#requests += 1;
    this.#bytes += end - start;
    return this.#blob(layer).subarray(start, end);
  }

  async *stream(
    layer: Descriptor,
    start: number,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    this.#requests += 1;
    const blob = this.#blob(layer);
    for (let at = start; at < blob.length; at += this.#pieceBytes) {
      signal.throwIfAborted();
      const piece = blob.subarray(at, at + this.#pieceBytes);
      this.#bytes += piece.length;
      yield piece;
    }
  }

  stats(): { requests: number; bytes: number } {
    return { requests: this.#requests, bytes: this.#bytes };
  }

  #blob(layer: Descriptor): Uint8Array {
    const blob = this.#blobs.get(layer.digest);
    if (blob === undefined) throw new Error(`no blob ${layer.digest}`);
    return blob;
  }
}

function describe(bytes: Uint8Array, mediaType: string): Descriptor {
  const hex = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
  return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
}
