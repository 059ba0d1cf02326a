import { gzipSync } from "node:zlib";
import { makeTar, type SeededRandom } from "../../src/index/tar.test-kit.ts";

export type LayerKind = "none" | "gzip" | "gzip-members" | "zstd" | "zstd-frames";
export const layerKinds: readonly LayerKind[] = ["none", "gzip", "gzip-members", "zstd", "zstd-frames"];

/** The archive as a layer of this kind: one gzip member or several, one zstd frame or several. */
export function compressed(tar: Buffer, kind: LayerKind): Buffer {
  if (kind === "none") return tar;
  const pack = (bytes: Uint8Array): Uint8Array =>
    kind.startsWith("gzip") ? gzipSync(bytes) : Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>);
  if (!kind.includes("-")) return Buffer.from(pack(tar));
  const piece = Math.max(512, Math.ceil(tar.length / 5));
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < tar.length; at += piece) pieces.push(pack(tar.subarray(at, at + piece)));
  return Buffer.concat(pieces);
}

/** A sound archive of a few files of about so many bytes altogether. */
export function someTar(random: SeededRandom, sizeBytes: number): Buffer {
  const count = 3 + random.next(5);
  return makeTar(
    Array.from({ length: count }, (_, at) => ({
      name: `file-${at}`,
      data: random.bytes(Math.floor(sizeBytes / count) + random.next(3000)),
    })),
  );
}
