import { hkdfSync, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { link, mkdir, open, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf } from "../std/error.ts";
import { boundTo, keyBytes, keyIdOf, unwrapKey, wrapKey } from "./envelope.ts";
import { SecretError } from "./error.ts";

/** The key outside the database that wraps each workspace's key. A file today; a key service fits the same shape. */
export interface KeyEncryptionKey {
  /** Names the key; stands beside what it wrapped. */
  readonly id: string;
  wrap(key: Uint8Array, aad: Uint8Array): Promise<Uint8Array>;
  /** Throws SecretError `undecryptable`. */
  unwrap(wrapped: Uint8Array, aad: Uint8Array): Promise<Uint8Array>;
  /** 32 bytes that only holders of the key can compute, bound to a purpose and its parts (HKDF-SHA256, RFC 5869). */
  derive(purpose: string, ...parts: readonly string[]): Uint8Array;
}

const header = "oci-node-key-v1";

/**
 * A key-encryption key in a file: one line, `oci-node-key-v1` and 32 random bytes in base64. Only its owner may read
 * it, and the owner must be who we run as; anything looser is refused, since a copy opens every secret.
 */
export class KeyFile implements KeyEncryptionKey {
  readonly id: string;
  readonly #key: Uint8Array;

  private constructor(key: Uint8Array) {
    this.#key = key;
    this.id = keyIdOf(key);
  }

  /**
   * Reads the key file; with `create`, makes it (mode 0600) when there is none. Of several that make it at once one
   * wins and all read the same. Throws SecretError `key_file`.
   */
  static async open(path: string, options: { create?: boolean } = {}): Promise<KeyEncryptionKey> {
    const found = await readKey(path);
    if (found !== undefined) return new KeyFile(found);
    if (options.create !== true) {
      throw refuse(
        path,
        "does not exist",
        "Restore it from your backup; without it no stored secret can be opened.",
      );
    }
    await createKey(path);
    const created = await readKey(path);
    if (created === undefined) throw refuse(path, "vanished while it was made", "Try again.");
    return new KeyFile(created);
  }

  async wrap(key: Uint8Array, aad: Uint8Array): Promise<Uint8Array> {
    return wrapKey(this.#key, key, aad);
  }

  async unwrap(wrapped: Uint8Array, aad: Uint8Array): Promise<Uint8Array> {
    return unwrapKey(this.#key, wrapped, aad);
  }

  derive(purpose: string, ...parts: readonly string[]): Uint8Array {
    return new Uint8Array(
      hkdfSync("sha256", this.#key, new Uint8Array(0), boundTo(purpose, ...parts), keyBytes),
    );
  }
}

async function readKey(path: string): Promise<Uint8Array | undefined> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const status = await file.stat();
      if (!status.isFile()) throw refuse(path, "is not a regular file", "Name a regular file.");
      if (status.uid !== process.getuid?.())
        throw refuse(path, "belongs to another user", `Run \`chown\` on ${path}.`);
      if ((status.mode & 0o077) !== 0)
        throw refuse(path, "can be read by others", `Run \`chmod 600 ${path}\`.`);
      if (status.size > 1024) throw refuse(path, "is not a key file", "Name the file that oci-node made.");
      return parseKey(path, await file.readFile("latin1"));
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof SecretError) throw error;
    if (errnoOf(error) === "ENOENT") return undefined;
    if (errnoOf(error) === "ELOOP") throw refuse(path, "is a symbolic link", "Name the file itself.");
    throw refuse(
      path,
      `cannot be read (${errnoOf(error) ?? "unknown"})`,
      "Check its path and its permissions.",
    );
  }
}

function parseKey(path: string, text: string): Uint8Array {
  const match = /^oci-node-key-v1 ([A-Za-z0-9+/]{43}=)\n?$/.exec(text);
  const key = match === null ? new Uint8Array(0) : Buffer.from(match[1] as string, "base64");
  if (key.length !== keyBytes) throw refuse(path, "is not a key file", "Restore it from your backup.");
  return key;
}

/** A hard link fails when the name is taken: nobody's key is ever overwritten. */
async function createKey(path: string): Promise<void> {
  const beside = `${path}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const file = await open(beside, "wx", 0o600);
    try {
      await file.writeFile(`${header} ${randomBytes(keyBytes).toString("base64")}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(beside, path);
    await syncFolder(dirname(path));
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") {
      throw refuse(
        path,
        `cannot be made (${errnoOf(error) ?? "unknown"})`,
        "Check that its folder can be written to.",
      );
    }
  } finally {
    await rm(beside, { force: true });
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function refuse(path: string, what: string, next: string): SecretError {
  return new SecretError("key_file", `the key file ${path} ${what}`, { next });
}
