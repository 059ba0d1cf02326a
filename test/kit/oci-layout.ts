import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { link, mkdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hostPlatform } from "./platform.ts";

export type LayerCompression = "gzip" | "zstd" | "none";

/** A layer as its blob, in memory or in a file. */
export interface Layer {
  readonly compression: LayerCompression;
  readonly blob: Uint8Array | { readonly path: string };
  /** `sha256:…` of the uncompressed tar. */
  readonly diffId: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The `config` part of an OCI image configuration. */
export interface ImageSettings {
  readonly Env?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly User?: string;
  readonly WorkingDir?: string;
  readonly StopSignal?: string;
  readonly Labels?: Readonly<Record<string, string>>;
}

/** An image in a folder of the OCI image layout, as skopeo and umoci read it (`oci:DIR:latest`). */
export interface LocalImage {
  readonly dir: string;
  readonly manifestDigest: string;
  readonly layers: readonly { readonly digest: string; readonly size: number; readonly mediaType: string }[];
  /** Bytes of all layers as the registry holds them. */
  readonly sizeBytes: number;
}

const layerType = "application/vnd.oci.image.layer.v1.tar";
const mediaTypes = { none: layerType, gzip: `${layerType}+gzip`, zstd: `${layerType}+zstd` } as const;

/** Makes a layer out of a tar: compressed, with both digests. */
export function layerOf(tar: Uint8Array, compression: LayerCompression = "gzip"): Layer {
  const blob =
    compression === "gzip"
      ? Bun.gzipSync(tar as Uint8Array<ArrayBuffer>, { level: 6 })
      : compression === "zstd"
        ? Bun.zstdCompressSync(tar as Uint8Array<ArrayBuffer>)
        : tar;
  return { compression, blob, diffId: digestOf(tar) };
}

/** Writes an OCI image layout with one image, tagged `latest`. */
export async function writeLayout(
  dir: string,
  layers: readonly Layer[],
  settings: ImageSettings,
): Promise<LocalImage> {
  const blobs = join(dir, "blobs/sha256");
  await mkdir(blobs, { recursive: true });
  const descriptors = [];
  for (const layer of layers) {
    const { digest, size } = await addBlob(blobs, layer.blob);
    const { annotations } = layer;
    const mediaType = mediaTypes[layer.compression];
    descriptors.push({ mediaType, digest, size, ...(annotations === undefined ? {} : { annotations }) });
  }
  const platform = hostPlatform();
  const config = await addBlob(
    blobs,
    jsonBytes({
      created: "2026-01-01T00:00:00Z",
      ...platform,
      config: settings,
      rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
      history: layers.map((_, index) => ({
        created: "2026-01-01T00:00:00Z",
        created_by: `test layer ${index}`,
      })),
    }),
  );
  const manifestType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = await addBlob(
    blobs,
    jsonBytes({
      schemaVersion: 2,
      mediaType: manifestType,
      config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
      layers: descriptors,
    }),
  );
  await writeFile(join(dir, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  const index = {
    schemaVersion: 2,
    manifests: [{ mediaType: manifestType, ...manifest, platform, annotations }],
  };
  await writeFile(join(dir, "index.json"), JSON.stringify(index));
  return localImage(dir, manifest.digest, descriptors);
}

/** Reads a layout back that {@link writeLayout} wrote. */
export async function readLayout(dir: string): Promise<LocalImage> {
  const index = await Bun.file(join(dir, "index.json")).json();
  const digest = index.manifests[0].digest as string;
  const manifest = await Bun.file(join(dir, "blobs/sha256", digest.slice(7))).json();
  return localImage(dir, digest, manifest.layers);
}

export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

export async function digestOfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk);
  return `sha256:${hash.digest("hex")}`;
}

function localImage(dir: string, manifestDigest: string, layers: LocalImage["layers"]): LocalImage {
  return { dir, manifestDigest, layers, sizeBytes: layers.reduce((sum, layer) => sum + layer.size, 0) };
}

async function addBlob(blobs: string, blob: Layer["blob"]): Promise<{ digest: string; size: number }> {
  if (blob instanceof Uint8Array) {
    const digest = digestOf(blob);
    await writeFile(join(blobs, digest.slice(7)), blob);
    return { digest, size: blob.length };
  }
  const digest = await digestOfFile(blob.path);
  await link(blob.path, join(blobs, digest.slice(7)));
  return { digest, size: (await stat(blob.path)).size };
}

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
