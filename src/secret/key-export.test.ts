import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redacted } from "../std/redacted.ts";
import type { SecretError } from "./error.ts";
import { KeyFile } from "./kek.ts";
import { exportKeyFile, importKeyFile, openFromSafe, sealForSafe } from "./key-export.ts";
import { findKeyFile } from "./key-folder.ts";

const passphrase = new Redacted("correct horse battery staple");

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "oci-node-export-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function refusal(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => "it was not refused",
    (error: unknown) => (error as SecretError).code,
  );
}

test("a copy holds the key for who has the passphrase, and shows nothing of it", async () => {
  const path = join(folder, "key");
  const { id } = await KeyFile.open(path, { create: true });
  const to = join(folder, "copy");
  expect(await exportKeyFile(path, to, passphrase)).toBe(id);
  expect((await stat(to)).mode & 0o777).toBe(0o600);
  const [text, key] = [
    await readFile(to, "utf8"),
    (await readFile(path, "utf8")).split(" ")[1]?.trim() ?? "",
  ];
  expect(text).toContain(id);
  for (const hidden of [key, passphrase.expose()]) expect(text).not.toContain(hidden);
  expect(Buffer.from(await openFromSafe(text, passphrase)).toString("base64")).toBe(key);
  expect((await findKeyFile(path))?.exportedAt).toBeInstanceOf(Date);
});

test("a copy is never written over a file, and a short passphrase is refused before anything is written", async () => {
  const path = join(folder, "key");
  await KeyFile.open(path, { create: true });
  const to = join(folder, "copy");
  expect(await refusal(exportKeyFile(path, to, new Redacted("eleven char")))).toBe("bad_value");
  expect(await readdir(folder)).toEqual(["key"]);
  await writeFile(to, "mine");
  expect(await refusal(exportKeyFile(path, to, passphrase))).toBe("exists");
  expect(await readFile(to, "utf8")).toBe("mine");
  expect(await refusal(exportKeyFile(path, join(folder, "no/where"), passphrase))).toBe("key_file");
  expect(await refusal(exportKeyFile(join(folder, "none"), join(folder, "x"), passphrase))).toBe("key_file");
});

test("a copy does not open with another passphrase, nor changed in any of its parts", async () => {
  const text = await sealForSafe(new Uint8Array(32).fill(9), passphrase);
  expect(await refusal(openFromSafe(text, new Redacted("correct horse battery stapl")))).toBe(
    "undecryptable",
  );
  const copy = JSON.parse(text);
  const other = JSON.parse(await sealForSafe(new Uint8Array(32).fill(8), passphrase));
  const cut = (base64: string) => Buffer.from(base64, "base64").subarray(1).toString("base64");
  const changes = [
    { keyId: other.keyId },
    { nonce: other.nonce },
    { ciphertext: other.ciphertext },
    { kdf: { ...copy.kdf, salt: other.kdf.salt } },
    { kdf: { ...copy.kdf, n: 2 ** 16 } },
    { kdf: { ...copy.kdf, p: 2 } },
    { ciphertext: cut(copy.ciphertext) },
    { nonce: cut(copy.nonce) },
  ];
  for (const change of changes) {
    expect(await refusal(openFromSafe(JSON.stringify({ ...copy, ...change }), passphrase))).toBe(
      "undecryptable",
    );
  }
});

test("a file that is no copy, or asks for endless work, is refused", async () => {
  const copy = JSON.parse(await sealForSafe(new Uint8Array(32).fill(9), passphrase));
  const files = [
    "",
    "{}",
    "oci-node-key-v1 AAAA",
    JSON.stringify({ ...copy, format: "oci-node key export v2" }),
    JSON.stringify({ ...copy, more: 1 }),
    JSON.stringify({ ...copy, kdf: { ...copy.kdf, n: 2 ** 24 } }),
    JSON.stringify({ ...copy, kdf: { ...copy.kdf, r: 1024 } }),
    JSON.stringify({ ...copy, kdf: { ...copy.kdf, n: 1000 } }),
  ];
  for (const text of files) expect(await refusal(openFromSafe(text, passphrase))).toBe("bad_value");
});

test("a key is put back where it was, or beside the one that is there, and nothing is overwritten", async () => {
  const first = join(folder, "key");
  const { id } = await KeyFile.open(first, { create: true });
  await exportKeyFile(first, join(folder, "copy"), passphrase);
  const copy = await readFile(join(folder, "copy"), "utf8");
  expect(await refusal(importKeyFile(copy, first, passphrase))).toBe("exists");
  await rm(first);
  expect(await importKeyFile(copy, first, passphrase)).toEqual({ id, path: first });
  expect((await KeyFile.open(first)).id).toBe(id);

  await rm(first);
  const present = await KeyFile.open(first, { create: true });
  const beside = join(folder, "keys", id);
  expect(await importKeyFile(copy, first, passphrase)).toEqual({ id, path: beside });
  expect((await findKeyFile(beside))?.exportedAt).toBeInstanceOf(Date);
  expect([(await KeyFile.open(first)).id, (await KeyFile.open(beside)).id]).toEqual([present.id, id]);
  expect(await refusal(importKeyFile(copy, first, passphrase))).toBe("exists");
});
