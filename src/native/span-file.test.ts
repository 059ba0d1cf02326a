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

function changed(change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(good);
  change(bytes);
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

test("survives two thousand span files with random damage", () => {
  using bench = new Bench();
  let state = 7;
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state % below;
  };
  const interesting = [0, 1, 7, 127, 128, 255];
  for (let i = 0; i < 2000; i++) {
    const bytes = changed((b) => {
      for (let n = random(4); n >= 0; n--) b[random(b.length)] = interesting[random(interesting.length)]!;
    });
    // What is left valid opens; the rest is refused; the process lives.
    expect(["opened", "BAD_SPAN_FILE", "EBUSY", "EFBIG", "ENOMEM"]).toContain(tryOpen(bench, bytes));
  }
});
