import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { credentialsFromWire } from "../credential/wire.ts";
import {
  ImageSchema,
  type ImageService,
  type Image as WireImage,
} from "../gen/oci_node/v1/image_service_pb.ts";
import type { WorkerLazyStatusSchema } from "../gen/oci_node/v1/lazy_status_pb.ts";
import type { StoredTrace } from "../index/trace-store.ts";
import { hostPlatform, parsePlatform } from "../reference/platform.ts";
import { formatReference, parseReference } from "../reference/reference.ts";
import type { PullLimit } from "../registry/pull-limit.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { Channel } from "../std/channel.ts";
import { type BuildDependencies, type BuildProgress, buildImage } from "./build.ts";
import { ImageError } from "./error.ts";
import { type Image, isImageId } from "./image.ts";
import type { ImageStore } from "./store.ts";

export interface ImageServiceDependencies extends BuildDependencies {
  /** Asks every worker what it has of an image. Never throws: a worker that does not answer says so. */
  readonly askWorkers: (
    image: { readonly workspaceId: string; readonly manifestDigest: string; readonly indexSha256: string },
    signal: AbortSignal,
  ) => Promise<MessageInitShape<typeof WorkerLazyStatusSchema>[]>;
}

/** Answers ImageService for the workspace of the caller. */
export function imageService(dependencies: ImageServiceDependencies): ServiceImpl<typeof ImageService> {
  const { images, index } = dependencies;
  return {
    async *buildImage(request, context) {
      const reference = parseReference(request.reference);
      const platform = request.platform === "" ? hostPlatform() : parsePlatform(request.platform);
      const credentials = credentialsFromWire(request.baseImageCreds);
      const progress = new Channel<BuildProgress>(256);
      const building = buildImage(
        dependencies,
        {
          workspaceId: workspaceOf(context),
          reference,
          credentials,
          secretName: request.secretName === "" ? undefined : request.secretName,
          platform,
          indexOnly: request.indexOnly,
        },
        (update) => progress.offer(update),
        context.signal,
      ).finally(() => progress.close());
      building.catch(() => undefined);
      for await (const update of progress) {
        yield { event: { case: "progress", value: wireProgress(update) } };
      }
      yield { event: { case: "image", value: wireImage(await building) } };
    },
    async listImages(_, context) {
      const rows = await images.list(workspaceOf(context));
      return { images: rows.map(wireImage) };
    },
    async getImage({ image }, context) {
      return { image: wireImage(await findImage(images, workspaceOf(context), image)) };
    },
    async getLazyStatus({ image }, context) {
      // Of layers that this image's build has proved: who sees what others' starts have brought of them has them, too.
      const found = await findImage(images, workspaceOf(context), image);
      const [workers, traces] = await Promise.all([
        dependencies.askWorkers({ ...found, indexSha256: found.indexSha256 ?? "" }, context.signal),
        index.traces.list(found.workspaceId, found.manifestDigest),
      ]);
      return { image: wireImage(found), workers, traces: traces.map(wireTrace) };
    },
    async deleteImage({ image }, context) {
      const found = await findImage(images, workspaceOf(context), image);
      const { indexUnused } = await images.remove(found.workspaceId, found.id);
      await dependencies.index.traces.remove(found.manifestDigest, found.workspaceId);
      if (indexUnused) await dependencies.index.removeImage(found.manifestDigest);
      return {};
    },
  };
}

/** The image that an id, or a reference by its latest build, means in a workspace. @throws ImageError `not_found` */
export async function findImage(images: ImageStore, workspaceId: string, text: string): Promise<Image> {
  if (isImageId(text)) return await images.get(workspaceId, text);
  const reference = formatReference(parseReference(text));
  const found = await images.latestFor(workspaceId, reference);
  if (found !== undefined) return found;
  if (/^img-/.test(text)) {
    throw new ImageError("not_found", `the workspace has no image ${text}`, {
      next: "List them with `oci-node image ls`.",
    });
  }
  throw new ImageError("not_found", `the workspace has no image of ${reference}`, {
    next: `Build it first: oci-node image build ${reference}`,
  });
}

function wireProgress(update: BuildProgress) {
  return {
    step: update.step,
    message: update.message,
    layerDigest: update.layerDigest ?? "",
    bytesDone: BigInt(update.bytesDone ?? 0),
    bytesTotal: BigInt(update.bytesTotal ?? 0),
    ...(update.pullLimit === undefined ? {} : { pullLimit: wirePullLimit(update.pullLimit) }),
  };
}

function wirePullLimit({ registry, limit, remaining, windowSeconds }: PullLimit) {
  return { registry, limit, remaining, windowSeconds };
}

function wireTrace({ name, trace }: StoredTrace) {
  return {
    name,
    program: trace.program,
    starts: trace.starts,
    ranges: trace.ranges.length,
    compressedBytes: BigInt(trace.ranges.reduce((sum, range) => sum + range.compressedBytes, 0)),
    updatedAt: timestampFromDate(trace.updatedAt),
  };
}

function wireImage(image: Image): WireImage {
  return create(ImageSchema, {
    id: image.id,
    reference: image.reference,
    registry: image.registry,
    repository: image.repository,
    manifestDigest: image.manifestDigest,
    platform: image.platform,
    credentialSecretName: image.credentialSecretName ?? "",
    credentialSecretId: image.credentialSecretId ?? "",
    sizeBytes: BigInt(image.sizeBytes),
    inodes: BigInt(image.inodes),
    layers: image.layerCount,
    indexSha256: image.indexSha256 ?? "",
    createdAt: timestampFromDate(image.createdAt),
  });
}
