import { expect, test } from "bun:test";
import { createDecipheriv, randomBytes } from "node:crypto";
import { boundTo, decrypt, encrypt, keyIdOf, unwrapKey, wrapKey } from "./envelope.ts";
import type { SecretError } from "./error.ts";

const key = randomBytes(32);
const aad = boundTo("place", 1);

function undecryptable(work: () => unknown): void {
  try {
    work();
  } catch (error) {
    expect((error as SecretError).code).toBe("undecryptable");
    return;
  }
  throw new Error("it opened");
}

test("opens what it sealed, with a fresh nonce each time", () => {
  const value = Buffer.from("ein Geheimnis");
  const [one, two] = [encrypt(key, value, aad), encrypt(key, value, aad)];
  expect(decrypt(key, one, aad)).toEqual(value);
  expect(one.nonce).toHaveLength(12);
  expect(one.ciphertext).toHaveLength(value.length + 16);
  expect(one.nonce).not.toEqual(two.nonce);
  expect(one.ciphertext).not.toEqual(two.ciphertext);
});

test("is AES-256-GCM as others read it", () => {
  // NIST GCM test case 16: AES-256, 96-bit nonce, associated data.
  const hex = (text: string) => Buffer.from(text, "hex");
  const caseKey = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
  const plaintext = hex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
  );
  const ciphertext = hex(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
  );
  const caseAad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
  const nonce = hex("cafebabefacedbaddecaf888");
  expect(decrypt(caseKey, { nonce, ciphertext }, caseAad)).toEqual(plaintext);
  const ours = encrypt(caseKey, plaintext, caseAad);
  const other = createDecipheriv("aes-256-gcm", caseKey, ours.nonce);
  other.setAAD(caseAad).setAuthTag(ours.ciphertext.subarray(-16));
  expect(Buffer.concat([other.update(ours.ciphertext.subarray(0, -16)), other.final()])).toEqual(plaintext);
});

test("does not open with a changed bit, a short tag, another key or another place", () => {
  const sealed = encrypt(key, Buffer.from("value"), aad);
  for (let index = 0; index < sealed.ciphertext.length; index += 1) {
    const ciphertext = Uint8Array.from(sealed.ciphertext);
    ciphertext[index] = (ciphertext[index] ?? 0) ^ 1;
    undecryptable(() => decrypt(key, { ...sealed, ciphertext }, aad));
  }
  undecryptable(() => decrypt(key, { ...sealed, ciphertext: sealed.ciphertext.subarray(0, 12) }, aad));
  undecryptable(() => decrypt(key, { ...sealed, nonce: sealed.nonce.subarray(1) }, aad));
  undecryptable(() => decrypt(randomBytes(32), sealed, aad));
  undecryptable(() => decrypt(key, sealed, boundTo("place", 2)));
});

test("wraps keys, and keys only", () => {
  const inner = randomBytes(32);
  expect(unwrapKey(key, wrapKey(key, inner, aad), aad)).toEqual(inner);
  undecryptable(() => unwrapKey(key, wrapKey(key, randomBytes(16), aad), aad));
  undecryptable(() => unwrapKey(key, new Uint8Array(5), aad));
});

test("no two lists of names bind to the same bytes", () => {
  const lists = [["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"], ["a", "b", "c"], []];
  expect(new Set(lists.map((list) => Buffer.from(boundTo(...list)).toString("hex"))).size).toBe(lists.length);
  expect(Buffer.from(boundTo("é", 7)).toString("hex")).toBe("00000002c3a90000000137");
});

test("a key's id is stable and is not the key", () => {
  expect(keyIdOf(Buffer.alloc(32))).toBe(keyIdOf(Buffer.alloc(32)));
  expect(keyIdOf(key)).toMatch(/^[0-9a-f]{16}$/);
  expect(keyIdOf(key)).not.toBe(keyIdOf(randomBytes(32)));
});
