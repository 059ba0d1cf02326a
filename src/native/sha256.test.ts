import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { patterned } from "./layer.test-kit.ts";
import { loadShim } from "./shim.ts";

const { symbols } = loadShim({ oci_sha256: { args: ["buffer", "u64", "bool", "buffer"], returns: "bool" } });

function sha256(text: Uint8Array, portable: boolean): string | undefined {
  const digest = Buffer.alloc(32);
  const input = text.length === 0 ? new Uint8Array(1) : text;
  return symbols.oci_sha256(input, text.length, portable, digest) ? digest.toString("hex") : undefined;
}

/** FIPS 180-4 examples and NIST CAVP SHA256ShortMsg. */
const vectors: readonly (readonly [Uint8Array, string])[] = [
  [Buffer.from(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
  [Buffer.from("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
  [
    Buffer.from("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
  ],
  [Buffer.from("d3", "hex"), "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"],
  [Buffer.alloc(1_000_000, "a"), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"],
];

test("both SHA-256 codes agree with the published vectors", () => {
  for (const [message, digest] of vectors) {
    expect(sha256(message, true)).toBe(digest);
    expect([digest, undefined]).toContain(sha256(message, false));
  }
});

test("both SHA-256 codes agree with another implementation at every length around a block", () => {
  const bytes = patterned(300);
  for (let length = 0; length < bytes.length; length++) {
    const expected = createHash("sha256").update(bytes.subarray(0, length)).digest("hex");
    expect(sha256(bytes.subarray(0, length), true)).toBe(expected);
    expect([expected, undefined]).toContain(sha256(bytes.subarray(0, length), false));
  }
});
