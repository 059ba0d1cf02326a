import { ImageReferenceError } from "./error.ts";

const digestPattern = /^sha256:[0-9a-f]{64}$/;

/**
 * Whether the text is a digest as we use them: `sha256:` and 64 lower-case hexadecimal digits (OCI image
 * specification, "Digests"). Other algorithms are legal there but are used by no registry, and are refused.
 */
export function isDigest(text: string): boolean {
  return digestPattern.test(text);
}

/** Returns the digest when it is one. @throws ImageReferenceError `bad_digest` */
export function assertDigest(text: string): string {
  if (isDigest(text)) return text;
  const shown = text.length > 100 ? `${text.slice(0, 100)}…` : text;
  throw new ImageReferenceError("bad_digest", `${JSON.stringify(shown)} is not a digest`, {
    next: "A digest is written as sha256: followed by 64 lower-case hexadecimal digits.",
  });
}

/** The digest of bytes: `sha256:…`. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
}
