import { type KitMember, makeTar, header as memberHeader } from "../../src/index/tar.test-kit.ts";
import { type Layer, type LayerCompression, layerOf } from "./oci-layout.ts";
import { noise } from "./odd-image.ts";

const mebi = 1024 * 1024;
const gibi = 1024 * mebi;

/** A layer whose name for its uncompressed bytes nobody checks: they are too many to make. */
function layer(compression: LayerCompression, ...parts: readonly Uint8Array[]): Layer {
  return { compression, blob: Buffer.concat(parts), diffId: `sha256:${"0".repeat(64)}` };
}

const pack = {
  gzip: (bytes: Buffer) => Bun.gzipSync(bytes as Buffer<ArrayBuffer>, { level: 9 }),
  zstd: (bytes: Buffer) => Bun.zstdCompressSync(bytes as Buffer<ArrayBuffer>),
};

/** `copies` times the same bytes, packed once: members of gzip and frames of zstd may follow one another. */
function repeated(kind: "gzip" | "zstd", piece: Buffer, copies: number): Buffer {
  const packed = pack[kind](piece);
  return Buffer.concat(Array.from({ length: copies }, () => packed));
}

/** One file of so many zeros: 10 GiB take 300 KB of zstd, or 10 MB of gzip. */
export function zeros(kind: "gzip" | "zstd", gibibytes: number): Layer {
  const sizeBytes = gibibytes * gibi;
  const head = memberHeader({ name: "zeros", size: sizeBytes });
  return layer(
    kind,
    pack[kind](head),
    repeated(kind, Buffer.alloc(64 * mebi), sizeBytes / (64 * mebi)),
    pack[kind](Buffer.alloc(1024)),
  );
}

/** A deflate block that goes on for `sizeBytes` of output: there is no place inside of it where a reader could begin. */
export function endlessBlock(sizeBytes: number): Layer {
  const tar = Buffer.concat([memberHeader({ name: "one", size: sizeBytes }), Buffer.alloc(sizeBytes)]);
  // Bits, first to last: a block that is not the last, of fixed codes.
  const bits = new BitWriter();
  bits.put(0b010, 3);
  for (const byte of tar.subarray(0, 512)) bits.literal(byte);
  bits.literal(0);
  // Length 258 at distance 1: code 285 and code 0.
  for (let left = sizeBytes - 1; left >= 258; left -= 258) {
    bits.code(0b11000101, 8);
    bits.code(0, 5);
  }
  bits.code(0, 7);
  bits.put(0b011, 3);
  bits.code(0, 7);
  const gzipHeader = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
  return layer("gzip", gzipHeader, bits.bytes(), Buffer.alloc(8));
}

/** A million and more entries in a few kilobytes. */
export function entries(count: number): Layer {
  const piece = 20_000;
  const block = memberHeader({ name: "same" });
  return layer(
    "gzip",
    repeated("gzip", Buffer.concat(Array.from({ length: piece }, () => block)), count / piece),
    pack.gzip(Buffer.alloc(1024)),
  );
}

/** Few names that imply many directories. */
export function deepPaths(count: number): Layer {
  const members = Array.from({ length: count }, (_, at): KitMember => {
    return { name: "deep", pax: [["path", `${at}/${"d/".repeat(2000)}f`]] };
  });
  return layerOf(makeTar(members));
}

export const member = (...members: readonly KitMember[]): Layer => layerOf(makeTar(members));

/** A pax header that says it is of 1 GiB. */
export const hugePax = (): Layer =>
  layer("gzip", pack.gzip(memberHeader({ name: "x", type: "x", size: gibi })));

/** A sparse file as GNU tar writes it, of any size. */
export function sparse(sizeBytes: number): Layer {
  return member({
    name: "sparse",
    data: noise(4096, 3),
    pax: [
      ["GNU.sparse.size", String(sizeBytes)],
      ["GNU.sparse.map", `${sizeBytes - 8192},4096`],
    ],
  });
}

/** What begins as gzip does and is none. */
export const garbageDeflate = (): Layer =>
  layer("gzip", Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]), noise(100_000, 5));

class BitWriter {
  readonly #bytes: number[] = [];
  #held = 0;
  #count = 0;

  /** The lowest bit first, as deflate has everything but its codes (RFC 1951, 3.1.1). */
  put(value: number, width: number): void {
    for (let bit = 0; bit < width; bit += 1) this.#add((value >> bit) & 1);
  }

  code(value: number, width: number): void {
    for (let bit = width - 1; bit >= 0; bit -= 1) this.#add((value >> bit) & 1);
  }

  literal(byte: number): void {
    if (byte < 144) this.code(0x30 + byte, 8);
    else this.code(0x190 + byte - 144, 9);
  }

  bytes(): Buffer {
    while (this.#count > 0) this.#add(0);
    return Buffer.from(this.#bytes);
  }

  #add(bit: number): void {
    this.#held |= bit << this.#count;
    this.#count += 1;
    if (this.#count < 8) return;
    this.#bytes.push(this.#held);
    this.#held = 0;
    this.#count = 0;
  }
}
