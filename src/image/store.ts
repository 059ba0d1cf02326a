import { and, asc, desc, eq, inArray, notInArray, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import {
  containers,
  endedContainerStates,
  imageLayers,
  imageReferences,
  images,
  layers,
  secrets,
} from "../db/schema.ts";
import { deployments, endpoints } from "../db/schema-endpoint.ts";
import { deleteUnusedLayers } from "../db/unused-layers.ts";
import type { IndexedLayer } from "../index/types.ts";
import { ImageError } from "./error.ts";
import { type Image, type ImageCredentialSecret, type ImageStatus, imageId, type NewImage } from "./image.ts";
import { LayerStore } from "./layer-store.ts";

/** What nobody names any more once an image is removed, so that its files can go too. */
export interface RemovedImage {
  readonly image: Image;
  /** No other image (of any workspace) has this manifest. */
  readonly indexUnused: boolean;
  readonly unusedLayers: readonly string[];
}

/** The rows of images, what references mean, and the layers that images are made of. */
export class ImageStore {
  readonly proofs: LayerStore;
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
    this.proofs = new LayerStore(database);
  }

  /**
   * Puts what a build knows under the image's deterministic id. A `ready` image stays ready and keeps its index while
   * it is built again, even if that fails. A ready image becomes what its reference means for its platform.
   */
  async put(image: NewImage, imageLayerList: readonly IndexedLayer[] = []): Promise<Image> {
    const id = imageId(image);
    await this.#database.transaction(async (tx) => {
      await upsertImage(tx, id, image);
      if (imageLayerList.length > 0) await replaceLayers(tx, id, imageLayerList);
      if (image.status === "ready") await pointReference(tx, id, image);
    });
    return this.get(image.workspaceId, id);
  }

  /** Throws ImageError `not_found`. */
  async get(workspaceId: string, id: string): Promise<Image> {
    const rows = await this.#database.query((db) =>
      selectImages(db).where(and(eq(images.id, id), eq(images.workspaceId, workspaceId))),
    );
    if (rows[0] === undefined) throw unknownImage(id);
    return toImage(rows[0]);
  }

  /** The ready image of the latest build of a canonical reference, of one platform or of any; undefined: never built. */
  async latestFor(workspaceId: string, reference: string, platform?: string): Promise<Image | undefined> {
    const rows = await this.#database.query((db) =>
      selectImages(db)
        .innerJoin(imageReferences, eq(imageReferences.imageId, images.id))
        .where(
          and(
            eq(imageReferences.workspaceId, workspaceId),
            eq(imageReferences.reference, reference),
            ...(platform === undefined ? [] : [eq(imageReferences.platform, platform)]),
          ),
        )
        .orderBy(desc(imageReferences.updatedAt))
        .limit(1),
    );
    return rows[0] === undefined ? undefined : toImage(rows[0]);
  }

  /** The workspace's images, the latest build first. */
  async list(workspaceId: string): Promise<Image[]> {
    const rows = await this.#database.query((db) =>
      selectImages(db)
        .where(eq(images.workspaceId, workspaceId))
        .orderBy(desc(images.updatedAt), asc(images.id)),
    );
    return rows.map(toImage);
  }

  /** Throws ImageError `not_found`, or `in_use` while a container that has not ended uses it, or an endpoint. */
  async remove(workspaceId: string, id: string): Promise<RemovedImage> {
    const image = await this.get(workspaceId, id);
    return this.#database.transaction(async (tx) => {
      const [locked] = await tx.select({ id: images.id }).from(images).where(eq(images.id, id)).for("update");
      if (locked === undefined) throw unknownImage(id);
      await refuseWhileUsed(tx, id);
      const layerRows = await tx.select().from(imageLayers).where(eq(imageLayers.imageId, id));
      await tx.delete(images).where(eq(images.id, id));
      const unusedLayers = await deleteUnusedLayers(
        tx,
        [...new Set(layerRows.map((row) => row.digest))].sort(),
      );
      const others = await tx
        .select({ id: images.id })
        .from(images)
        .where(eq(images.manifestDigest, image.manifestDigest))
        .limit(1);
      return {
        image,
        indexUnused: others.length === 0,
        unusedLayers,
      };
    });
  }

  /** The layers of an image, the base first. */
  async layers(id: string): Promise<IndexedLayer[]> {
    const rows = await this.#database.query((db) =>
      db
        .select({ layer: layers })
        .from(imageLayers)
        .innerJoin(layers, eq(layers.digest, imageLayers.digest))
        .where(eq(imageLayers.imageId, id))
        .orderBy(asc(imageLayers.position)),
    );
    return rows.map(({ layer: { createdAt: _, factsSha256: __, ...layer } }) => layer);
  }

  /**
   * Names the secret that holds an image's credentials. Throws ImageError `not_found`, or `secret_not_found` when the
   * image's workspace has no such secret: an image never names another workspace's.
   */
  async setImageCredentialSecret(id: string, secretName: string, secretId: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const [image] = await tx
        .select({ workspaceId: images.workspaceId })
        .from(images)
        .where(eq(images.id, id));
      if (image === undefined) throw unknownImage(id);
      const found = await tx
        .select({ id: secrets.id })
        .from(secrets)
        .where(
          and(
            sql`${secrets.id}::text = ${secretId}`,
            eq(secrets.name, secretName),
            eq(secrets.workspaceId, image.workspaceId),
          ),
        )
        .for("key share");
      if (found.length === 0)
        throw new ImageError("secret_not_found", `image ${id}: no secret ${secretName} here`);
      await tx
        .update(images)
        .set({ credentialSecretName: secretName, credentialSecretId: secretId })
        .where(eq(images.id, id));
    });
  }

  /** The secret that an image's row names (it may be gone by now); undefined: a public image. Throws `not_found`. */
  async getImageCredentialSecret(id: string): Promise<ImageCredentialSecret | undefined> {
    const [row] = await this.#database.query((db) =>
      db
        .select({ secretName: images.credentialSecretName, secretId: images.credentialSecretId })
        .from(images)
        .where(eq(images.id, id)),
    );
    if (row === undefined) throw unknownImage(id);
    if (row.secretName === null || row.secretId === null) return undefined;
    return { secretName: row.secretName, secretId: row.secretId };
  }
}

function selectImages(db: Queries) {
  const layerCount = sql<number>`(select count(*)::int from image_layers where image_id = ${images.id})`;
  return db.select({ image: images, layerCount }).from(images);
}

async function upsertImage(tx: Queries, id: string, image: NewImage): Promise<void> {
  const { status, indexSha256 = null, failure = null, ...rest } = image;
  const staysReady = sql`${images.status} = 'ready' and excluded.status <> 'ready'`;
  const keep = (column: string) => sql.raw(`images.${column}`);
  const put = (column: string) => sql.raw(`excluded.${column}`);
  const unlessReady = (column: string) =>
    sql`case when ${staysReady} then ${keep(column)} else ${put(column)} end`;
  await tx
    .insert(images)
    .values({ id, ...rest, status, indexSha256, failure })
    .onConflictDoUpdate({
      target: images.id,
      set: {
        reference: put("reference"),
        configDigest: unlessReady("config_digest"),
        sizeBytes: unlessReady("size_bytes"),
        inodes: unlessReady("inodes"),
        indexSha256: unlessReady("index_sha256"),
        failure: unlessReady("failure"),
        status: unlessReady("status"),
        updatedAt: sql`now()`,
      },
    });
}

async function replaceLayers(tx: Queries, id: string, list: readonly IndexedLayer[]): Promise<void> {
  // In one order everywhere, so that builds that share layers do not wait for each other in a circle.
  const distinct = [...new Map(list.map((layer) => [layer.digest, layer])).values()];
  distinct.sort((a, b) => (a.digest < b.digest ? -1 : 1));
  for (const { digest, mediaType, sizeBytes, ...span } of distinct) {
    const { tarSizeBytes, blobSizeBytes, entries, spanSha256, spanSizeBytes } = span;
    const facts = { mediaType, sizeBytes, tarSizeBytes, blobSizeBytes, entries, spanSha256, spanSizeBytes };
    await tx
      .insert(layers)
      .values({ digest, ...facts })
      .onConflictDoUpdate({ target: layers.digest, set: facts });
  }
  await tx.delete(imageLayers).where(eq(imageLayers.imageId, id));
  await tx
    .insert(imageLayers)
    .values(list.map((layer, position) => ({ imageId: id, position, digest: layer.digest })));
}

async function pointReference(tx: Queries, id: string, image: NewImage): Promise<void> {
  const { workspaceId, reference, platform } = image;
  await tx
    .insert(imageReferences)
    .values({ workspaceId, reference, platform, imageId: id })
    .onConflictDoUpdate({
      target: [imageReferences.workspaceId, imageReferences.reference, imageReferences.platform],
      set: { imageId: id, updatedAt: sql`now()` },
    });
}

async function refuseWhileUsed(tx: Queries, id: string): Promise<void> {
  const users = await tx
    .select({ id: containers.id })
    .from(containers)
    .where(and(eq(containers.imageId, id), notInArray(containers.state, endedContainerStates)))
    .limit(5);
  if (users.length > 0)
    throw new ImageError("in_use", `image ${id} is used by ${users.map((user) => user.id).join(", ")}`, {
      next: "Stop these containers first.",
    });
  const deployed = await tx
    .selectDistinct({ name: endpoints.name })
    .from(deployments)
    .innerJoin(endpoints, eq(endpoints.id, deployments.endpointId))
    .where(and(eq(deployments.imageId, id), inArray(deployments.state, ["starting", "active", "draining"])))
    .limit(5);
  if (deployed.length === 0) return;
  throw new ImageError(
    "in_use",
    `image ${id} is deployed as ${deployed.map(({ name }) => name).join(", ")}`,
    {
      next: "Remove these endpoints first, or deploy another image to them: `oci-node endpoint ls`.",
    },
  );
}

function unknownImage(id: string): ImageError {
  return new ImageError("not_found", `no image ${id} in this workspace`, {
    next: "See `oci-node image ls`.",
  });
}

function toImage(row: { image: typeof images.$inferSelect; layerCount: number }): Image {
  const { credentialSecretName, credentialSecretId, indexSha256, failure, status, ...rest } = row.image;
  return {
    ...rest,
    credentialSecretName: credentialSecretName ?? undefined,
    credentialSecretId: credentialSecretId ?? undefined,
    indexSha256: indexSha256 ?? undefined,
    failure: failure ?? undefined,
    status: status as ImageStatus,
    layerCount: row.layerCount,
  };
}
