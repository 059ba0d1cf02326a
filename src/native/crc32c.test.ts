import { expect, test } from "bun:test";
import { crc32c } from "./crc32c.test-kit.ts";
import { patterned } from "./layer.test-kit.ts";

/** RFC 3720, appendix B.4 (the bytes there are in the order of the wire), and the check value of the CRC catalogues. */
const vectors: readonly (readonly [Uint8Array, number])[] = [
  [Buffer.alloc(32), 0x8a9136aa],
  [Buffer.alloc(32, 0xff), 0x62a8ab43],
  [Buffer.from(Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e],
  [Buffer.from(Array.from({ length: 32 }, (_, i) => 31 - i)), 0x113fdb5c],
  [Buffer.from("123456789"), 0xe3069283],
  [Buffer.alloc(0), 0],
];

test("both CRC32C codes agree with the published vectors", () => {
  for (const [bytes, sum] of vectors) {
    expect(crc32c(bytes)).toBe(sum);
    expect([sum, -1]).toContain(crc32c(bytes, false));
  }
});

test("both CRC32C codes agree with each other at every length and alignment around a word", () => {
  const bytes = patterned(100);
  for (let from = 0; from < 9; from++)
    for (let to = from; to < 100; to++) {
      const part = bytes.subarray(from, to);
      expect([crc32c(part), -1]).toContain(crc32c(part, false));
    }
});
