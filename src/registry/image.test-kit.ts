import { gzipSync } from "node:zlib";
import { digestOf } from "../reference/digest.ts";
import { type Descriptor, mediaTypes } from "./descriptor.ts";

/** A small image as its parts: what a registry holds under digests. */
export interface TestImage {
  readonly manifest: Descriptor;
  readonly manifestBytes: Uint8Array;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly blobs: ReadonlyMap<string, Uint8Array>;
}

export interface TestImageOptions {
  readonly architecture?: string;
  readonly layers?: readonly Uint8Array[];
  readonly manifest?: Record<string, unknown>;
}

export function makeImage(options: TestImageOptions = {}): TestImage {
  const layers = options.layers ?? [gzipSync(noise(300_000, 1)), gzipSync(noise(5_000, 2))];
  const blobs = new Map<string, Uint8Array>();
  const put = (mediaType: string, bytes: Uint8Array): Descriptor => {
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const layerDescriptors = layers.map((bytes) => put("application/vnd.oci.image.layer.v1.tar+gzip", bytes));
  const config = put(
    "application/vnd.oci.image.config.v1+json",
    json({
      architecture: options.architecture ?? "amd64",
      os: "linux",
      config: { Env: ["PATH=/bin"], Cmd: ["/bin/true"] },
      rootfs: { type: "layers", diff_ids: layerDescriptors.map(({ digest }) => digest) },
    }),
  );
  const document = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: layerDescriptors };
  const manifestBytes = json({ ...document, ...options.manifest });
  const manifest = {
    mediaType: mediaTypes.ociManifest,
    digest: digestOf(manifestBytes),
    size: manifestBytes.length,
  };
  return { manifest, manifestBytes, config, layers: layerDescriptors, blobs };
}

/** An index of images, one per platform (`linux/arm64`). */
export function makeIndex(images: Readonly<Record<string, TestImage>>): Uint8Array {
  const manifests = Object.entries(images).map(([name, { manifest }]) => {
    const [os, architecture, variant] = name.split("/");
    return { ...manifest, platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } };
  });
  return json({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests });
}

/** Pushes by plain HTTP: blobs in one request each, then the manifest under a tag. */
export async function pushImage(
  host: string,
  repository: string,
  tag: string,
  image: TestImage,
  headers: Record<string, string> = {},
): Promise<void> {
  for (const [digest, bytes] of image.blobs) await pushBlob(host, repository, digest, bytes, headers);
  await pushManifest(host, repository, tag, image.manifestBytes, mediaTypes.ociManifest, headers);
}

export async function pushBlob(
  host: string,
  repository: string,
  digest: string,
  bytes: Uint8Array,
  headers: Record<string, string> = {},
): Promise<void> {
  const started = await fetch(`http://${host}/v2/${repository}/blobs/uploads/`, { method: "POST", headers });
  if (started.status !== 202) throw new Error(`upload of ${digest}: ${started.status}`);
  const location = new URL(started.headers.get("location") ?? "", `http://${host}`);
  location.searchParams.set("digest", digest);
  const sent = await fetch(location, {
    method: "PUT",
    headers: { ...headers, "Content-Type": "application/octet-stream" },
    body: new Uint8Array(bytes),
  });
  if (sent.status !== 201) throw new Error(`blob ${digest}: ${sent.status}`);
}

/** Makes a blob of one repository one of another, too, without sending it. */
export async function linkBlob(host: string, from: string, to: string, digest: string): Promise<void> {
  const url = `http://${host}/v2/${to}/blobs/uploads/?mount=${digest}&from=${from}`;
  const { status } = await fetch(url, { method: "POST" });
  if (status !== 201) throw new Error(`linking ${digest} to ${to}: ${status}`);
}

export async function pushManifest(
  host: string,
  repository: string,
  tag: string,
  bytes: Uint8Array,
  mediaType: string,
  headers: Record<string, string> = {},
): Promise<void> {
  const put = await fetch(`http://${host}/v2/${repository}/manifests/${tag}`, {
    method: "PUT",
    headers: { ...headers, "Content-Type": mediaType },
    body: new Uint8Array(bytes),
  });
  if (put.status !== 201) throw new Error(`manifest ${tag}: ${put.status} ${await put.text()}`);
}

/** Bytes that do not compress, the same ones each time. */
export function noise(sizeBytes: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  let state = seed * 2654435761 + 1;
  for (let index = 0; index < sizeBytes; index += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[index] = state >>> 24;
  }
  return bytes;
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
