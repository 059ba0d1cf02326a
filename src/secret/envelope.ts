import { createCipheriv, createDecipheriv, createHmac, randomBytes } from "node:crypto";
import { SecretError } from "./error.ts";

/** Bytes of a key, of a nonce and of a tag: AES-256-GCM as in NIST SP 800-38D with a 96-bit nonce and a full tag. */
export const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

export interface Sealed {
  readonly nonce: Uint8Array;
  /** Ends with the 16-byte tag. */
  readonly ciphertext: Uint8Array;
}

/** Encrypts under a fresh random nonce. */
export function encrypt(key: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Sealed {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: tagBytes });
  cipher.setAAD(aad);
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  return { nonce, ciphertext };
}

/** Decrypts, or throws SecretError `undecryptable`: another key, another place, or changed bytes; which one is not told. */
export function decrypt(key: Uint8Array, { nonce, ciphertext }: Sealed, aad: Uint8Array): Buffer {
  if (nonce.length !== nonceBytes || ciphertext.length < tagBytes) throw undecryptable();
  try {
    const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: tagBytes });
    decipher.setAAD(aad);
    decipher.setAuthTag(ciphertext.subarray(ciphertext.length - tagBytes));
    return Buffer.concat([
      decipher.update(ciphertext.subarray(0, ciphertext.length - tagBytes)),
      decipher.final(),
    ]);
  } catch {
    throw undecryptable();
  }
}

/** Encrypts a key: nonce, ciphertext and tag in one. */
export function wrapKey(wrappingKey: Uint8Array, key: Uint8Array, aad: Uint8Array): Uint8Array {
  const { nonce, ciphertext } = encrypt(wrappingKey, key, aad);
  return Buffer.concat([nonce, ciphertext]);
}

/** Undoes {@link wrapKey}; throws SecretError `undecryptable`. */
export function unwrapKey(wrappingKey: Uint8Array, wrapped: Uint8Array, aad: Uint8Array): Uint8Array {
  const nonce = wrapped.subarray(0, nonceBytes);
  const key = decrypt(wrappingKey, { nonce, ciphertext: wrapped.subarray(nonceBytes) }, aad);
  if (key.length !== keyBytes) throw undecryptable();
  return key;
}

/**
 * Names of the place that a ciphertext belongs to, each with its length before it (4 bytes, big-endian), so that no
 * two lists of names give the same bytes.
 */
export function boundTo(...parts: readonly (string | number)[]): Uint8Array {
  const chunks: Uint8Array[] = [];
  for (const part of parts) {
    const text = Buffer.from(String(part), "utf8");
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    chunks.push(length, text);
  }
  return Buffer.concat(chunks);
}

/** A key's public name: 16 hex digits that tell keys apart and nothing about them. */
export function keyIdOf(key: Uint8Array): string {
  return createHmac("sha256", key).update("oci-node key id v1").digest("hex").slice(0, 16);
}

function undecryptable(): SecretError {
  return new SecretError("undecryptable", "a sealed value cannot be opened with this key at this place");
}
