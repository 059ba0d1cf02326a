import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { LayerBlob } from "./blob.ts";
import { NativeError } from "./error.ts";
import { Bench, encodeSpanFile, gzipMembersLayer, patterned } from "./layer.test-kit.ts";

const layer = gzipMembersLayer(patterned(10_000), 3000);
const good = encodeSpanFile(layer);
const spanAt = (i: number, field: number): number => 128 + 96 * i + field;
const extentAt = 128 + 96 * layer.spans.length;

function tryOpen(bench: Bench, bytes: Uint8Array): string {
  writeFileSync(bench.path("x.spans"), bytes);
  try {
    void LayerBlob.open(bench.paths("x")).release();
    return "opened";
  } catch (error) {
    if (error instanceof NativeError) return error.code;
    throw error;
  }
}

function changed(change: (bytes: Buffer) => void, from: Uint8Array = good): Buffer {
  const bytes = Buffer.from(from);
  change(bytes);
  return bytes;
}

/** The extent table packed, behind everything else: one run of 10,000 bytes from 0 to 0. */
function packed(table: readonly number[] = [0, 0, 0x90, 0x4e], count = 1): Buffer {
  const bytes = Buffer.concat([good, Buffer.from(table)]);
  bytes.writeUInt32LE(count, 44);
  bytes.writeBigUInt64LE(BigInt(good.length), 56);
  bytes.writeBigUInt64LE(BigInt(table.length), 112);
  return bytes;
}

const huge = 0xffff_ffff_ffff_fff0n;
const corruptions: Record<string, Buffer> = {
  "an empty file": Buffer.alloc(0),
  "a cut header": good.subarray(0, 100),
  "a cut span table": good.subarray(0, 200),
  "another magic": changed((b) => b.write("X")),
  "another version": changed((b) => void b.writeUInt32LE(2, 8)),
  "an unknown kind": changed((b) => void b.writeUInt32LE(6, 12)),
  "a blob size that is no multiple of a block": changed((b) => void b.writeBigUInt64LE(12289n, 32)),
  "a huge blob": changed((b) => void b.writeBigUInt64LE(1n << 60n, 32)),
  "more spans than the file has": changed((b) => void b.writeUInt32LE(0x0fff_ffff, 40)),
  "more extents than the file has": changed((b) => void b.writeUInt32LE(0xffff_ffff, 44)),
  "a span table beyond the end": changed((b) => void b.writeBigUInt64LE(huge, 48)),
  "windows beyond the end": changed((b) => void b.writeBigUInt64LE(huge, 72)),
  "a compressed offset beyond the layer": changed((b) => void b.writeBigUInt64LE(huge, spanAt(1, 0))),
  "a compressed length beyond the layer": changed((b) => void b.writeBigUInt64LE(1n << 40n, spanAt(3, 8))),
  "a gap between spans": changed((b) => void b.writeBigUInt64LE(3001n, spanAt(1, 16))),
  "a span of huge length": changed((b) => void b.writeBigUInt64LE(huge, spanAt(1, 24))),
  "a blob offset that goes back": changed((b) => void b.writeBigUInt64LE(0n, spanAt(2, 32))),
  "a window beyond the windows": changed((b) => {
    b.writeUInt32LE(10, spanAt(1, 48));
    b.writeUInt32LE(10, spanAt(1, 52));
  }),
  "eight bits": changed((b) => void b.writeUInt8(8, spanAt(1, 56))),
  "unknown flags": changed((b) => void b.writeUInt8(2, spanAt(1, 57))),
  "a chunk with a window": changed((b) => {
    b.writeUInt32LE(4, 12);
    b.writeUInt32LE(1, spanAt(1, 52));
  }),
  "a chunk far behind its member's beginning": changed((b) => {
    b.writeUInt32LE(4, 12);
    b.writeBigUInt64LE(1n << 30n, spanAt(1, 40));
  }),
  "an empty extent": changed((b) => void b.writeBigUInt64LE(0n, extentAt + 16)),
  "an extent beyond the spans": changed((b) => void b.writeBigUInt64LE(20_000n, extentAt + 16)),
  "an extent beyond the blob": changed((b) => void b.writeBigUInt64LE(huge, extentAt + 8)),
  "a packed extent that is cut off": packed([0, 0, 0x90]),
  "a packed number without an end": packed([0, 0, ...Array(12).fill(0xff)]),
  "packed extents beyond all bounds": packed([0, 0, ...Array(7).fill(0xff), 0x7f]),
  "an empty packed extent": packed([0, 0, 0]),
  "a packed extent beyond the spans": packed([1, 0, 0x90, 0x4e]),
  "bytes behind the packed extents": packed([0, 0, 0x90, 0x4e, 0]),
  "more packed extents than bytes for them": packed([0, 0, 0x90, 0x4e], 2),
  "packed extents beyond the end": packed().subarray(0, -1),
};

test("opens a span file that is whole", () => {
  using bench = new Bench();
  expect(tryOpen(bench, good)).toBe("opened");
});

for (const [what, bytes] of Object.entries(corruptions)) {
  test(`refuses a span file with ${what}`, () => {
    using bench = new Bench();
    expect(tryOpen(bench, bytes)).toBe("BAD_SPAN_FILE");
  });
}

test("reads packed extents as those that are not", () => {
  using bench = new Bench();
  writeFileSync(bench.path("x.spans"), packed());
  const blob = LayerBlob.open(bench.paths("x"));
  using other = new Bench();
  writeFileSync(other.path("x.spans"), good);
  const plain = LayerBlob.open(other.paths("x"));
  for (const [offset, length] of [
    [0, 1],
    [2999, 2],
    [0, 10_000],
    [9999, 1],
    [10_000, 2000],
  ] as const)
    expect(blob.spansOf(offset, length)).toEqual(plain.spansOf(offset, length));
  void blob.release();
  void plain.release();
});

test("survives two thousand span files with random damage", () => {
  using bench = new Bench();
  let state = 7;
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state % below;
  };
  const interesting = [0, 1, 7, 127, 128, 255];
  for (let i = 0; i < 2000; i++) {
    const damage = (b: Buffer): void => {
      for (let n = random(4); n >= 0; n--) b[random(b.length)] = interesting[random(interesting.length)]!;
    };
    const bytes = changed(damage, i % 2 === 0 ? good : packed());
    // What is left valid opens; the rest is refused; the process lives.
    expect(["opened", "BAD_SPAN_FILE", "EBUSY", "EFBIG", "ENOMEM"]).toContain(tryOpen(bench, bytes));
  }
});
