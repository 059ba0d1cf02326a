import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { link, mkdir, open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { errnoOf } from "../std/error.ts";
import { keyBytes, keyIdOf, unwrapKey, wrapKey } from "./envelope.ts";
import { SecretError } from "./error.ts";

/** Where a key-encryption key is kept. */
export type KeyKind = "file" | "aws-kms" | "gcp-kms" | "env";

/** The key outside the database that wraps each workspace's key: in a file, or at a key service. */
export interface KeyEncryptionKey {
  /** Names the key; stands beside what it wrapped. */
  readonly id: string;
  readonly kind: KeyKind;
  /** @throws SecretError `key_unreachable`, `key_refused` */
  wrap(key: Uint8Array, aad: Uint8Array): Promise<Uint8Array>;
  /** @throws SecretError `undecryptable`, `key_unreachable`, `key_refused` */
  unwrap(wrapped: Uint8Array, aad: Uint8Array): Promise<Uint8Array>;
  /** Drops what is kept in memory of a wrapped key. */
  forget?(wrapped: Uint8Array): void;
}

/** A key-encryption key whose bytes this process holds. */
export class LocalKey implements KeyEncryptionKey {
  readonly id: string;
  readonly kind: KeyKind;
  readonly #key: Uint8Array;

  /** @param key 32 bytes */
  constructor(kind: "file" | "env", key: Uint8Array) {
    this.kind = kind;
    this.#key = key;
    this.id = keyIdOf(key);
  }

  async wrap(key: Uint8Array, aad: Uint8Array): Promise<Uint8Array> {
    return wrapKey(this.#key, key, aad);
  }

  async unwrap(wrapped: Uint8Array, aad: Uint8Array): Promise<Uint8Array> {
    return unwrapKey(this.#key, wrapped, aad);
  }
}

/**
 * A key in a variable of the environment, 32 bytes in base64: for development.
 *
 * @throws SecretError `key_file`
 */
export function keyFromVariable(name: string, value: string | undefined): LocalKey {
  const key = Buffer.from(value ?? "", "base64");
  if (/^[A-Za-z0-9+/]{43}=$/.test(value ?? "") && key.length === keyBytes) return new LocalKey("env", key);
  const what = value === undefined ? "is not set" : "does not hold 32 bytes in base64";
  throw new SecretError("key_file", `the variable ${name} ${what}`, {
    next: `Set it, by \`export ${name}=$(openssl rand -base64 32)\`, and keep the value.`,
  });
}

const header = "oci-node-key-v1";

/**
 * A key-encryption key in a file: one line, `oci-node-key-v1` and 32 random bytes in base64. Only its owner may read
 * it, and the owner must be who we run as; anything looser is refused, since a copy opens every secret.
 */
export class KeyFile extends LocalKey {
  private constructor(key: Uint8Array) {
    super("file", key);
  }

  /** The key in a file; undefined when there is none. @throws SecretError `key_file` */
  static async find(path: string): Promise<KeyFile | undefined> {
    const found = await readKeyFile(path);
    return found === undefined ? undefined : new KeyFile(found);
  }

  /** Makes a key file that is named by its key's id. @throws SecretError `key_file` */
  static async makeIn(folder: string): Promise<{ readonly path: string; readonly key: KeyFile }> {
    const bytes = randomBytes(keyBytes);
    const path = join(folder, keyIdOf(bytes));
    await createKeyFile(path, bytes);
    return { path, key: new KeyFile(bytes) };
  }

  /**
   * Reads the key file; with `create`, makes it (mode 0600) when there is none. Of several that make it at once one
   * wins and all read the same. Throws SecretError `key_file`.
   */
  static async open(path: string, options: { create?: boolean } = {}): Promise<KeyFile> {
    const found = await readKeyFile(path);
    if (found !== undefined) return new KeyFile(found);
    if (options.create !== true) {
      throw refuse(
        path,
        "does not exist",
        "Restore it from your backup; without it no stored secret can be opened.",
      );
    }
    await createKeyFile(path);
    const created = await readKeyFile(path);
    if (created === undefined) throw refuse(path, "vanished while it was made", "Try again.");
    return new KeyFile(created);
  }
}

/** The key in a file, undefined when there is none; the caller fills it with zeros. @throws SecretError `key_file` */
export async function readKeyFile(path: string): Promise<Uint8Array | undefined> {
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

/**
 * Writes a key file with a new key, or with the one given, unless there is a file already: a hard link fails when the name
 * is taken, so that nobody's key is ever overwritten.
 *
 * @throws SecretError `key_file`
 */
export async function createKeyFile(path: string, key: Uint8Array = randomBytes(keyBytes)): Promise<void> {
  const beside = `${path}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const file = await open(beside, "wx", 0o600);
    try {
      await file.writeFile(`${header} ${Buffer.from(key).toString("base64")}\n`);
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
