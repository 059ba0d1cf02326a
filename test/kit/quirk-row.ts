import { busyboxImage } from "./busybox-image.ts";
import type { LocalImage } from "./oci-layout.ts";
import { noise } from "./odd-image.ts";
import type { BlobHost } from "./quirk-blobs.ts";
import type { QuirkRegistry } from "./quirk-registry.ts";

/** One registry of the world, as a {@link import("./quirk-net.ts").QuirkNet} plays it, and how it is asked. */
export interface Row {
  /** As users write it. */
  readonly reference: string;
  /** The credential, in the caller's variables. */
  readonly env: Readonly<Record<string, string>>;
  /** The one of its values that must be seen at its own hosts and nowhere else. */
  readonly secret?: string;
  readonly registry: QuirkRegistry;
  readonly blobs?: BlobHost;
  /** How many passwords or tokens its innermost issuer has given out. */
  readonly issued: () => number;
}

const farBytes = 5 * 1024 * 1024;
const fileBytes = 200_000;

/**
 * A small image with a layer of its own, whose two files `/data/one` and `/data/two` are further apart than what one
 * read brings.
 */
export function rowImage(seed: number): Promise<LocalImage> {
  return busyboxImage({
    extra: [
      { path: "data/one", data: noise(fileBytes, seed) },
      { path: "data/between", data: noise(farBytes, seed + 1) },
      { path: "data/two", data: noise(fileBytes, seed + 2) },
    ],
  });
}

const pieceBytes = 2 * 1024 * 1024;

/** An image with `/data/long`, of which each piece of 2 MiB has to be fetched by itself. */
export function longImage(pieces: number): Promise<LocalImage> {
  return busyboxImage({ extra: [{ path: "data/long", data: noise(pieces * pieceBytes, 77) }] });
}

/** Lines of `md5sum` of the first 64 KiB of each piece of {@link longImage}. */
export function md5OfPieces(pieces: number): string[] {
  const bytes = noise(pieces * pieceBytes, 77);
  return Array.from({ length: pieces }, (_, index) => {
    const piece = bytes.subarray(index * pieceBytes, index * pieceBytes + 65_536);
    return new Bun.CryptoHasher("md5").update(piece).digest("hex");
  });
}

/** What `md5sum` prints of a file of {@link rowImage}. */
export function md5Of(file: "one" | "two", seed: number): string {
  const bytes = noise(fileBytes, file === "one" ? seed : seed + 2);
  return new Bun.CryptoHasher("md5").update(bytes).digest("hex");
}
