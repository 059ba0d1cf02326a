import { IndexError } from "./error.ts";
import type { Compression } from "./types.ts";

/** Bytes that {@link detectCompression} wants to see, when the layer has as many. */
export const magicBytes = 6;

const known: readonly (readonly [name: string, magic: readonly number[]])[] = [
  ["bzip2", [0x42, 0x5a, 0x68]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["lz4", [0x04, 0x22, 0x4d, 0x18]],
];

/** Media types of layers: OCI image specification, and Docker's image manifest version 2, schema 2. */
const layerTypes =
  /^application\/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(foreign\.)?diff\.tar)([.+][a-z0-9+]+)?$/;

/**
 * How a layer is compressed. Its first bytes decide, as in Docker and containerd, since media types lie; the media type
 * must be one of a layer, and tells what to make of an empty one.
 *
 * @throws {IndexError} `unsupported_compression`
 */
export function detectCompression(mediaType: string, head: Uint8Array): Compression {
  const match = layerTypes.exec(mediaType);
  if (match === null) throw unsupported(`the media type ${JSON.stringify(mediaType)} is not a layer's`);
  const suffix = (match[4] ?? "").slice(1);
  if (suffix.includes("encrypted")) throw unsupported("the layer is encrypted");
  const starts = (magic: readonly number[]): boolean => magic.every((byte, at) => head[at] === byte);
  if (starts([0x1f, 0x8b])) return "gzip";
  const skippable =
    ((head[0] ?? 0) & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18;
  if (starts([0x28, 0xb5, 0x2f, 0xfd]) || skippable) return "zstd";
  if (head.length === 0 && suffix !== "") return suffix.includes("zstd") ? "zstd" : "gzip";
  for (const [name, magic] of known)
    if (starts(magic)) throw unsupported(`the layer is compressed by ${name}`);
  return "none";
}

function unsupported(why: string): IndexError {
  return new IndexError("unsupported_compression", `the layer cannot be indexed: ${why}`, {
    next: "Push the image with gzip or zstd layers.",
  });
}
