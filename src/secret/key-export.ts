import { createCipheriv, createDecipheriv, randomBytes, scrypt } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { errnoOf } from "../std/error.ts";
import type { Redacted } from "../std/redacted.ts";
import { boundTo, keyBytes, keyIdOf } from "./envelope.ts";
import { SecretError } from "./error.ts";
import { createKeyFile, readKeyFile } from "./kek.ts";
import { exportMarker, findKeyFile, keyFolder } from "./key-folder.ts";

/** scrypt (RFC 7914) as OWASP's "Password Storage Cheat Sheet" has it: 128 MiB and some tenths of a second. */
const cost = { n: 2 ** 17, r: 8, p: 1 };
/** What a file may ask of us. */
const costMax = { n: 2 ** 20, r: 8, p: 4 };
const passphraseCharactersMin = 12;
const format = "oci-node key export v1";

const base64 = z.string().regex(/^[A-Za-z0-9+/]+={0,2}$/);
const exported = z.strictObject({
  format: z.literal(format),
  keyId: z.string().regex(/^[0-9a-f]{16}$/),
  kdf: z.strictObject({
    name: z.literal("scrypt"),
    n: z.number().int().min(2).max(costMax.n),
    r: z.number().int().min(1).max(costMax.r),
    p: z.number().int().min(1).max(costMax.p),
    salt: base64,
  }),
  nonce: base64,
  ciphertext: base64,
});

/**
 * A key-encryption key under a passphrase, as text for a safe: scrypt makes the key by which AES-256-GCM encrypts it, and
 * all parameters are bound to it.
 *
 * @throws SecretError `bad_value` for a passphrase that is too short
 */
export async function sealForSafe(key: Uint8Array, passphrase: Redacted<string>): Promise<string> {
  if ([...passphrase.expose()].length < passphraseCharactersMin) {
    throw new SecretError("bad_value", `the passphrase has less than ${passphraseCharactersMin} characters`, {
      next: "Take a longer one, such as six random words: whoever has the file can try as many as he likes.",
    });
  }
  const keyId = keyIdOf(key);
  const kdf = { name: "scrypt" as const, ...cost, salt: randomBytes(16).toString("base64") };
  const nonce = randomBytes(12);
  const derived = await derive(passphrase, kdf);
  const cipher = createCipheriv("aes-256-gcm", derived, nonce, { authTagLength: 16 });
  cipher.setAAD(aadOf(keyId, kdf));
  const ciphertext = Buffer.concat([cipher.update(key), cipher.final(), cipher.getAuthTag()]);
  derived.fill(0);
  const file = {
    format,
    keyId,
    kdf,
    nonce: nonce.toString("base64"),
    ciphertext: ciphertext.toString("base64"),
  };
  return `${JSON.stringify(file, undefined, 2)}\n`;
}

/**
 * Undoes {@link sealForSafe}; the caller fills the key with zeros.
 *
 * @throws SecretError `bad_value` when the text is no such copy, `undecryptable` when the passphrase is another one
 */
export async function openFromSafe(text: string, passphrase: Redacted<string>): Promise<Uint8Array> {
  const parsed = exported.safeParse(parseJson(text));
  if (!parsed.success) {
    throw new SecretError("bad_value", "the file is no copy of a key that `oci-node key export` made");
  }
  const { keyId, kdf, nonce, ciphertext } = parsed.data;
  const sealed = Buffer.from(ciphertext, "base64");
  const iv = Buffer.from(nonce, "base64");
  if (sealed.length !== keyBytes + 16 || iv.length !== 12) throw refused();
  const derived = await derive(passphrase, kdf);
  try {
    const decipher = createDecipheriv("aes-256-gcm", derived, iv, { authTagLength: 16 });
    decipher.setAAD(aadOf(keyId, kdf));
    decipher.setAuthTag(sealed.subarray(keyBytes));
    const key = Buffer.concat([decipher.update(sealed.subarray(0, keyBytes)), decipher.final()]);
    if (keyIdOf(key) !== keyId) throw refused();
    return key;
  } catch {
    throw refused();
  } finally {
    derived.fill(0);
  }
}

/**
 * Writes a copy of a key file for a safe (mode 0600), and notes beside the key that there is one.
 *
 * @returns the key's id
 * @throws SecretError `exists` when there is a file of that name, `key_file`, `bad_value`
 */
export async function exportKeyFile(path: string, to: string, passphrase: Redacted<string>): Promise<string> {
  const key = await readKeyFile(path);
  if (key === undefined) throw new SecretError("key_file", `the key file ${path} does not exist`);
  const text = await sealForSafe(key, passphrase).finally(() => key.fill(0));
  await writeFile(to, text, { flag: "wx", mode: 0o600, flush: true }).catch((error: unknown) => {
    if (errnoOf(error) === "EEXIST") {
      throw new SecretError("exists", `${to} is there already`, { next: "Choose another name." });
    }
    throw new SecretError("key_file", `${to} cannot be written (${errnoOf(error) ?? "unknown"})`, {
      next: "Check its folder.",
    });
  });
  await noteCopy(path);
  return (JSON.parse(text) as { keyId: string }).keyId;
}

/**
 * Puts a key back on a host out of its copy: as the first key file where there is none, else among the other keys. Nothing
 * is overwritten.
 *
 * @throws SecretError `exists` when the host has the key, `key_file`, `bad_value`, `undecryptable`
 */
export async function importKeyFile(
  text: string,
  firstKeyFile: string,
  passphrase: Redacted<string>,
): Promise<{ readonly id: string; readonly path: string }> {
  const key = await openFromSafe(text, passphrase);
  try {
    const id = keyIdOf(key);
    const first = await findKeyFile(firstKeyFile);
    const path = first === undefined ? firstKeyFile : join(keyFolder(firstKeyFile), id);
    const there = first?.key.id === id ? first : await findKeyFile(path);
    if (there !== undefined) {
      throw new SecretError("exists", `this host has the key ${id} already: ${there.path}`);
    }
    await createKeyFile(path, key);
    await noteCopy(path);
    return { id, path };
  } finally {
    key.fill(0);
  }
}

/** Where it cannot be noted, the key goes on being told of as one without a copy. */
async function noteCopy(path: string): Promise<void> {
  const now = new Date().toISOString();
  await writeFileAtomic(exportMarker(path), `${now}\n`, 0o600).catch(() => undefined);
}

type Kdf = z.infer<typeof exported>["kdf"];

function derive(passphrase: Redacted<string>, { n, r, p, salt }: Kdf): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const options = { N: n, r, p, maxmem: 256 * n * r };
    // Unicode has several ways to write the same letters; keyboards differ.
    const normal = passphrase.expose().normalize("NFC");
    const unusable = () => reject(new SecretError("bad_value", "the parameters of the copy cannot be used"));
    try {
      scrypt(normal, Buffer.from(salt, "base64"), keyBytes, options, (error, key) => {
        if (error) unusable();
        else resolve(key);
      });
    } catch {
      unusable();
    }
  });
}

function aadOf(keyId: string, { name, n, r, p, salt }: Kdf): Uint8Array {
  return boundTo(format, keyId, name, n, r, p, salt);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refused(): SecretError {
  return new SecretError(
    "undecryptable",
    "the copy does not open: the passphrase is another one, or the file is damaged",
    {
      next: "Try again with the passphrase that it was exported with.",
    },
  );
}
