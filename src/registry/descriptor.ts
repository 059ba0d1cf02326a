import { z } from "zod";
import { isDigest } from "../reference/digest.ts";

/** A content descriptor (OCI image specification, `descriptor.md`): what, its digest, its size in bytes. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerSchema1: "application/vnd.docker.distribution.manifest.v1+json",
  dockerSchema1Signed: "application/vnd.docker.distribution.manifest.v1+prettyjws",
} as const;

/** What a manifest request accepts: the four kinds of the two families. */
export const acceptedManifests = [
  mediaTypes.ociIndex,
  mediaTypes.ociManifest,
  mediaTypes.dockerList,
  mediaTypes.dockerManifest,
].join(", ");

/** How a layer is compressed. */
export type LayerCompression = "none" | "gzip" | "zstd";

const layerCompressions: Readonly<Record<string, LayerCompression>> = {
  "application/vnd.oci.image.layer.v1.tar": "none",
  "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
  "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
  "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
  "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
  "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
  "application/vnd.docker.image.rootfs.diff.tar": "none",
  "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
  "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
  "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
};

/** The compression that a layer's media type promises, or `undefined` when it is no layer that we know. */
export function layerCompression(mediaType: string): LayerCompression | undefined {
  return Object.hasOwn(layerCompressions, mediaType) ? layerCompressions[mediaType] : undefined;
}

/** Reads a descriptor of a manifest. Annotations other than texts are dropped with the rest of what we do not use. */
export const descriptorSchema = z.object({
  mediaType: z.string().max(255).default(""),
  digest: z.string().refine(isDigest, "not a sha256 digest"),
  size: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  annotations: z.record(z.string(), z.string()).nullish(),
  urls: z.array(z.string()).nullish(),
  platform: z
    .object({
      os: z.string().default(""),
      architecture: z.string().default(""),
      variant: z.string().nullish(),
    })
    .nullish(),
});

export type ParsedDescriptor = z.infer<typeof descriptorSchema>;

/** The plain descriptor of a parsed one. */
export function toDescriptor(parsed: ParsedDescriptor): Descriptor {
  return {
    mediaType: parsed.mediaType,
    digest: parsed.digest,
    size: parsed.size,
    ...(parsed.annotations ? { annotations: parsed.annotations } : {}),
  };
}
