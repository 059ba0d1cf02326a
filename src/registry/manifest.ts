import { z } from "zod";
import { formatPlatform, normalizePlatform, type Platform } from "../reference/platform.ts";
import {
  type Descriptor,
  descriptorSchema,
  layerCompression,
  mediaTypes,
  type ParsedDescriptor,
  toDescriptor,
} from "./descriptor.ts";
import { RegistryError, type Where } from "./error.ts";

/** A manifest that was read: an index of others, or an image. */
export type Manifest =
  | { readonly kind: "index"; readonly mediaType: string; readonly entries: readonly IndexEntry[] }
  | {
      readonly kind: "image";
      readonly mediaType: string;
      readonly config: Descriptor;
      readonly layers: readonly Descriptor[];
    };

export interface IndexEntry {
  readonly descriptor: Descriptor;
  readonly platform: Platform | undefined;
}

const entriesMax = 1000;
const layersMax = 1000;

const indexSchema = z.object({ manifests: z.array(descriptorSchema).max(entriesMax) });
const imageSchema = z.object({ config: descriptorSchema, layers: z.array(descriptorSchema).max(layersMax) });

const indexTypes: ReadonlySet<string> = new Set([mediaTypes.ociIndex, mediaTypes.dockerList]);
const imageTypes: ReadonlySet<string> = new Set([mediaTypes.ociManifest, mediaTypes.dockerManifest]);
const schema1Types: ReadonlySet<string> = new Set([mediaTypes.dockerSchema1, mediaTypes.dockerSchema1Signed]);
const configTypes: ReadonlySet<string> = new Set([
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
]);

/**
 * Reads a manifest of the four kinds (OCI image specification `manifest.md`, `image-index.md`; distribution "Image
 * Manifest V2, Schema 2").
 *
 * @param contentType the answer's header, without parameters; the document's own `mediaType` wins
 * @throws RegistryError `unsupported_media_type`, `protocol`
 */
export function parseManifest(bytes: Uint8Array, contentType: string, name: string, where: Where): Manifest {
  const document = parseObject(bytes, name, where);
  const own = document["mediaType"];
  const mediaType = typeof own === "string" && own !== "" ? own : contentType;
  if (schema1Types.has(mediaType) || document["schemaVersion"] === 1) {
    throw new RegistryError(
      "unsupported_media_type",
      `${name} has a manifest of schema 1, which is given up`,
      where,
      {
        next: "Push the image again with a current Docker, Podman or BuildKit.",
      },
    );
  }
  // One document that is an index to one reader and an image to another (CVE-2021-41190).
  if (
    document["manifests"] !== undefined &&
    (document["layers"] !== undefined || document["config"] !== undefined)
  ) {
    throw malformed(name, where, "it is an index and an image at once");
  }
  if (indexTypes.has(mediaType)) return parseIndex(document, mediaType, name, where);
  if (imageTypes.has(mediaType)) return parseImage(document, mediaType, name, where);
  const shown = /^[\w.+/-]{1,100}$/.test(mediaType) ? mediaType : "an unknown type";
  throw new RegistryError(
    "unsupported_media_type",
    `${name} has a manifest of ${shown}, which is no image`,
    where,
    {
      next: "Name a container image (OCI or Docker schema 2).",
    },
  );
}

function parseIndex(document: object, mediaType: string, name: string, where: Where): Manifest {
  const parsed = indexSchema.safeParse(document);
  if (!parsed.success) throw malformed(name, where, "its list of manifests is not valid");
  const entries = parsed.data.manifests.map((entry) => ({
    descriptor: toDescriptor(entry),
    platform: platformOf(entry),
  }));
  return { kind: "index", mediaType, entries };
}

function platformOf({ platform }: ParsedDescriptor): Platform | undefined {
  if (!platform || platform.os === "") return undefined;
  const { os, architecture, variant } = platform;
  return normalizePlatform({ os, architecture, ...(variant ? { variant } : {}) });
}

function parseImage(document: object, mediaType: string, name: string, where: Where): Manifest {
  const parsed = imageSchema.safeParse(document);
  if (!parsed.success) throw malformed(name, where, "its config or its layers are not valid");
  const { config, layers } = parsed.data;
  if (!configTypes.has(config.mediaType)) {
    throw new RegistryError(
      "unsupported_media_type",
      `${name} is an artifact, not a container image`,
      where,
      {
        next: "Name a container image.",
      },
    );
  }
  for (const layer of layers) {
    if (layer.urls && layer.urls.length > 0) {
      throw new RegistryError(
        "unsupported_media_type",
        `${name} has a foreign layer, which lies outside of the registry`,
        where,
        {
          next: "Push the image with all of its layers (docker: `allow-nondistributable-artifacts`).",
        },
      );
    }
    if (layerCompression(layer.mediaType) !== undefined) continue;
    const shown = /^[\w.+/-]{1,100}$/.test(layer.mediaType) ? layer.mediaType : "an unknown type";
    throw new RegistryError("unsupported_media_type", `${name} has a layer of ${shown}`, where, {
      next: "Push the image with layers of tar, tar+gzip or tar+zstd (encrypted layers are not supported).",
    });
  }
  return { kind: "image", mediaType, config: toDescriptor(config), layers: layers.map(toDescriptor) };
}

/**
 * The manifest of an index for a platform: the wanted variant or the nearest older one (arm v7 runs v6), and none where
 * none is wanted. Entries without a platform are no choice; `undefined` when nothing fits.
 */
export function pickPlatform(entries: readonly IndexEntry[], wanted: Platform): Descriptor | undefined {
  const { os, architecture, variant } = normalizePlatform(wanted);
  const fitting = entries.filter(
    ({ platform }) => platform?.os === os && platform.architecture === architecture,
  );
  for (const acceptable of variantsFor(architecture, variant)) {
    const found = fitting.find(({ platform }) => platform?.variant === acceptable);
    if (found !== undefined) return found.descriptor;
  }
  return undefined;
}

/** No variant is counted higher: a wanted `v4000000000` must not become as many to look for. */
const variantMax = 16;

function variantsFor(architecture: string, variant: string | undefined): readonly (string | undefined)[] {
  if (architecture === "arm") {
    const newest = variant === undefined ? 7 : levelOf(variant);
    const older = Array.from({ length: Math.max(0, newest - 4) }, (_, step) => `v${newest - step}`);
    return variant === undefined ? [undefined, ...older] : [...older, undefined];
  }
  if (architecture === "amd64") {
    const newest = variant === undefined ? 1 : levelOf(variant);
    return [...Array.from({ length: newest }, (_, step) => `v${newest - step}`), undefined];
  }
  return variant === undefined ? [undefined] : [variant, undefined];
}

function levelOf(variant: string): number {
  const level = Number(variant.slice(1));
  return level <= variantMax ? level : 0;
}

/** The platforms of an index, for an error: `linux/amd64, linux/arm64`. */
export function listPlatforms(entries: readonly IndexEntry[]): string {
  const names = entries
    .map(({ platform }) => platform)
    .filter((one) => one !== undefined && one.os !== "unknown");
  const shown = names
    .map((platform) => formatPlatform(platform as Platform))
    .filter((text) => /^[\w./-]{1,80}$/.test(text));
  return [...new Set(shown)].slice(0, 20).join(", ");
}

function parseObject(bytes: Uint8Array, name: string, where: Where): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>;
  } catch {
    // One error for all that is no JSON object.
  }
  throw malformed(name, where, "it is not JSON");
}

function malformed(name: string, where: Where, why: string): RegistryError {
  return new RegistryError("protocol", `the manifest of ${name} is malformed: ${why}`, where, {
    next: "Push the image again, or check that a registry answers at this host.",
  });
}
