import { randomBytes } from "node:crypto";
import { boundTo, decrypt, encrypt, keyBytes } from "./envelope.ts";
import { SecretError } from "./error.ts";
import type { KeyEncryptionKey } from "./kek.ts";

/** The key-encryption keys that this process can use. */
export interface Keyring {
  /** The one that wraps what is new. */
  primary(): Promise<KeyEncryptionKey>;
  /**
   * The key of this id.
   *
   * @param what of which thing it is wanted, for the error: `the secrets of workspace W`
   * @throws SecretError `undecryptable` when it is not here
   */
  key(id: string, what: string): Promise<KeyEncryptionKey>;
}

/** What a row under a key-encryption key no longer needs: copies of it in this process's memory go. */
export async function forgetWrapped(ring: Keyring, keyId: string, wrapped: Uint8Array): Promise<void> {
  const key = await ring.key(keyId, "what is forgotten").catch(() => undefined);
  key?.forget?.(wrapped);
}

/** A ring of one key. */
export function singleKey(key: KeyEncryptionKey): Keyring {
  return {
    primary: async () => key,
    async key(id, what) {
      if (id === key.id) return key;
      throw new SecretError(
        "undecryptable",
        `${what} are under key ${id}, but the key file holds ${key.id}`,
        {
          next: "Start with the key file that belongs to this database.",
        },
      );
    },
  };
}

/** Bytes under a data key of their own, which a key-encryption key wraps. */
export interface KeySealed {
  /** Length of the wrapped data key (2 bytes, big-endian), that key, nonce, ciphertext with its tag. */
  readonly sealed: Uint8Array;
  /** The key-encryption key. */
  readonly keyId: string;
}

const nonceBytes = 12;

/** Seals bytes that stand outside every workspace, bound to their place: the kind of thing, and which one. */
export async function sealUnder(ring: Keyring, place: SealPlace, bytes: Uint8Array): Promise<KeySealed> {
  return await sealWith(await ring.primary(), place, bytes);
}

/** As {@link sealUnder}, under this key. */
export async function sealWith(
  kek: KeyEncryptionKey,
  place: SealPlace,
  bytes: Uint8Array,
): Promise<KeySealed> {
  const dataKey = randomBytes(keyBytes);
  try {
    const wrapped = await kek.wrap(dataKey, aad("data key", place, kek.id));
    const { nonce, ciphertext } = encrypt(dataKey, bytes, aad(place.part, place, kek.id));
    const length = Buffer.alloc(2);
    length.writeUInt16BE(wrapped.length);
    return { sealed: Buffer.concat([length, wrapped, nonce, ciphertext]), keyId: kek.id };
  } finally {
    dataKey.fill(0);
  }
}

/** Undoes {@link sealUnder}; the caller fills the bytes with zeros. @throws SecretError `undecryptable` */
export async function openUnder(
  ring: Keyring,
  place: SealPlace,
  { sealed: bytes, keyId }: KeySealed,
): Promise<Buffer> {
  const kek = await ring.key(keyId, `the ${place.kind}s`);
  const sealed = Buffer.from(bytes);
  const wrappedEnd = 2 + (sealed.length < 2 ? 0 : sealed.readUInt16BE());
  const dataKey = await kek.unwrap(sealed.subarray(2, wrappedEnd), aad("data key", place, keyId));
  try {
    const nonce = sealed.subarray(wrappedEnd, wrappedEnd + nonceBytes);
    const ciphertext = sealed.subarray(wrappedEnd + nonceBytes);
    return decrypt(dataKey, { nonce, ciphertext }, aad(place.part, place, keyId));
  } finally {
    dataKey.fill(0);
  }
}

/** To what sealed bytes belong. */
export interface SealPlace {
  /** `identity key`, `cluster authority`. */
  readonly kind: string;
  readonly id: string;
  /** What of it: `private key`. */
  readonly part: string;
}

function aad(what: string, { kind, id }: SealPlace, keyId: string): Uint8Array {
  return boundTo("oci-node", "v1", kind, what, id, keyId);
}
