import { createHash } from "node:crypto";

/** `building` until its index is there; only a `ready` image can be run. */
export type ImageStatus = "building" | "ready" | "failed";

/** An image of a workspace: one manifest for one platform, pinned by digest. */
export interface Image {
  /** {@link imageId} of what it is. */
  readonly id: string;
  readonly workspaceId: string;
  readonly registry: string;
  readonly repository: string;
  /** The canonical reference of its latest build. */
  readonly reference: string;
  readonly manifestDigest: string;
  readonly configDigest: string;
  /** `linux/amd64`. */
  readonly platform: string;
  /** The secret whose credentials fetch its layers; undefined: a public image. */
  readonly credentialSecretName: string | undefined;
  readonly credentialSecretId: string | undefined;
  /** SHA-256 (hex) of the image's index; undefined until it is ready. */
  readonly indexSha256: string | undefined;
  /** Compressed bytes of all layers. */
  readonly sizeBytes: number;
  readonly inodes: number;
  readonly layerCount: number;
  readonly status: ImageStatus;
  /** Why it failed, one sentence. */
  readonly failure: string | undefined;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** What a build knows of an image; the credential's secret is set apart from it. */
export interface NewImage {
  readonly workspaceId: string;
  readonly registry: string;
  readonly repository: string;
  readonly reference: string;
  readonly manifestDigest: string;
  readonly configDigest: string;
  readonly platform: string;
  readonly indexSha256?: string | undefined;
  readonly sizeBytes: number;
  readonly inodes: number;
  readonly status: ImageStatus;
  readonly failure?: string | undefined;
}

/** Which secret holds an image's credentials. */
export interface ImageCredentialSecret {
  readonly secretName: string;
  readonly secretId: string;
}

/**
 * The id of an image, the same each time that it is built: `img-` and 24 hex digits of a SHA-256 over the workspace,
 * the repository, the manifest's digest and the platform. Two workspaces never share an image's row.
 */
export function imageId(image: {
  workspaceId: string;
  registry: string;
  repository: string;
  manifestDigest: string;
  platform: string;
}): string {
  const hash = createHash("sha256");
  for (const part of [
    image.workspaceId,
    image.registry,
    image.repository,
    image.manifestDigest,
    image.platform,
  ]) {
    hash.update(`${Buffer.byteLength(part)}:${part}`);
  }
  return `img-${hash.digest("hex").slice(0, 24)}`;
}

/** What workers fetch an image by: `registry/repository@digest`. */
export function referenceOf(image: Image): string {
  return `${image.registry}/${image.repository}@${image.manifestDigest}`;
}

/** Whether a text is shaped like an image id, and so cannot be meant as a reference. */
export function isImageId(text: string): boolean {
  return /^img-[0-9a-f]{24}$/.test(text);
}
