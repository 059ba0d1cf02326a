import { z } from "zod";
import { isDigest } from "../reference/digest.ts";
import { IndexError } from "./error.ts";
import type { ImageIndex, IndexedLayer } from "./types.ts";

const digest = z.string().refine(isDigest, "not a sha256 digest");
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

const layerSchema = z.strictObject({
  digest,
  mediaType: z.string(),
  sizeBytes: count,
  tarSizeBytes: count,
  blobSizeBytes: count,
  entries: count,
  spanSha256: sha256,
  spanSizeBytes: count,
  tocDigest: digest.optional(),
  registry: z.string().min(1).optional(),
});

const imageSchema = z.strictObject({
  version: z.literal(1),
  repository: z.string().min(1),
  manifestDigest: digest,
  configDigest: digest,
  platform: z.string().min(1),
  imageConfig: z.string(),
  erofsSha256: sha256,
  erofsSizeBytes: count,
  inodes: count,
  layers: z.array(layerSchema),
});

/** The one text of an image's index: JSON without spaces, its keys in the order in which {@link ImageIndex} has them. */
export function encodeImageIndex(index: ImageIndex): string {
  return JSON.stringify(imageSchema.parse({ ...index, layers: index.layers.map((layer) => ({ ...layer })) }));
}

/** The SHA-256 (hex) that names an image's index: of its one text. */
export function imageIndexSha256(index: ImageIndex): string {
  return new Bun.CryptoHasher("sha256").update(encodeImageIndex(index)).digest("hex");
}

/** Reads what {@link encodeImageIndex} wrote. @throws IndexError `corrupt_index`, naming `path` */
export function decodeImageIndex(text: string, path: string): ImageIndex {
  try {
    const index = imageSchema.parse(JSON.parse(text));
    const layers: readonly IndexedLayer[] = index.layers;
    return { ...index, layers };
  } catch (cause) {
    throw new IndexError("corrupt_index", `${path} is not the index of an image`, {
      cause,
      next: "Build the image again.",
    });
  }
}
