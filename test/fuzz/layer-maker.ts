import { gzipSync } from "node:zlib";
import { makeTar, type SeededRandom } from "../../src/index/tar.test-kit.ts";

export type LayerKind = "none" | "gzip" | "gzip-members" | "zstd" | "zstd-frames";
export const layerKinds: readonly LayerKind[] = ["none", "gzip", "gzip-members", "zstd", "zstd-frames"];

export function mediaTypeOf(kind: LayerKind): string {
  const tar = "application/vnd.oci.image.layer.v1.tar";
  return kind === "none" ? tar : `${tar}+${kind.split("-")[0]}`;
}

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

/** A sound archive of a few MiB that packs well and yet into many blocks: a small layer of several spans. */
export function spannedTar(random: SeededRandom): Buffer {
  const words = random.bytes(4000);
  const data = Buffer.alloc(5 * 1024 * 1024);
  for (let at = 0; at < data.length; ) {
    const from = random.next(words.length - 80);
    at += words.copy(data, at, from, from + 20 + random.next(60));
    if (at < data.length) data[at] = random.next(256);
    at += 1;
  }
  return makeTar([
    { name: "a", data: data.subarray(0, 2_500_000) },
    { name: "b", data: data.subarray(2_500_000) },
  ]);
}
