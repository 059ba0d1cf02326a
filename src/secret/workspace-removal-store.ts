import { and, asc, eq, inArray, notInArray } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { containers, endedContainerStates, imageLayers, images, workspaces } from "../db/schema.ts";
import { volumes } from "../db/schema-endpoint.ts";
import { deleteUnusedLayers } from "../db/unused-layers.ts";
import { SecretError } from "./error.ts";
import { summariesIn, unknownWorkspace, type WorkspaceSummary } from "./workspace-summary-store.ts";

/** What went with a workspace. */
export interface RemovedWorkspace extends WorkspaceSummary {
  /** Manifests that no image of any workspace has any more: their indexes are nobody's. */
  readonly unusedManifests: readonly string[];
  /** What its workers still have. */
  readonly volumes: readonly { readonly name: string; readonly workerId: string }[];
}

const namedMax = 5;

/**
 * Removes a workspace in one transaction: its secrets, images, ended containers, tokens, webhooks and alerts go with its
 * row; with `onlyEmpty` not while there are secrets, images or volumes. The only copy of its key is overwritten first. The row is locked meanwhile, so that nothing is made in it.
 */
export async function removeWorkspace(
  database: Database,
  name: string,
  { onlyEmpty = false }: { readonly onlyEmpty?: boolean } = {},
): Promise<RemovedWorkspace> {
  return await database.transaction(async (tx) => {
    const [row] = await tx
      .select({ id: workspaces.id, wrappedKey: workspaces.wrappedKey })
      .from(workspaces)
      .where(eq(workspaces.name, name))
      .for("update");
    const [summary] = row === undefined ? [] : await summariesIn(tx, row.id);
    if (row === undefined || summary === undefined) throw unknownWorkspace(name);
    await refuseWhileRunning(tx, row.id, name);
    const kept = await tx
      .select({ name: volumes.name, workerId: volumes.workerId })
      .from(volumes)
      .where(eq(volumes.workspaceId, row.id))
      .orderBy(asc(volumes.name));
    if (onlyEmpty) refuseWithContents(summary, kept.length);
    const manifests = await tx
      .selectDistinct({ digest: images.manifestDigest })
      .from(images)
      .where(eq(images.workspaceId, row.id));
    const layers = await tx
      .selectDistinct({ digest: imageLayers.digest })
      .from(imageLayers)
      .innerJoin(images, eq(images.id, imageLayers.imageId))
      .where(eq(images.workspaceId, row.id))
      .orderBy(asc(imageLayers.digest));
    await tx
      .update(workspaces)
      .set({ wrappedKey: new Uint8Array(row.wrappedKey.length) })
      .where(eq(workspaces.id, row.id));
    await tx.delete(workspaces).where(eq(workspaces.id, row.id));
    await deleteUnusedLayers(
      tx,
      layers.map(({ digest }) => digest),
    );
    return { ...summary, unusedManifests: await withoutImages(tx, manifests), volumes: kept };
  });
}

async function refuseWhileRunning(tx: Queries, workspaceId: string, name: string): Promise<void> {
  const living = await tx
    .select({ id: containers.id })
    .from(containers)
    .where(and(eq(containers.workspaceId, workspaceId), notInArray(containers.state, endedContainerStates)))
    .orderBy(asc(containers.id));
  if (living.length === 0) return;
  const named = living.slice(0, namedMax).map(({ id }) => id);
  const more = living.length > named.length ? ` and ${living.length - named.length} more` : "";
  throw new SecretError("in_use", `workspace ${name} has containers that live: ${named.join(", ")}${more}`, {
    next: "Stop them first, or let --force do it.",
  });
}

/** Nothing brings them back: that has to be meant. */
function refuseWithContents({ name, secrets, images }: WorkspaceSummary, volumesKept: number): void {
  if (secrets + images + volumesKept === 0) return;
  const kept = volumesKept === 0 ? "" : `, volumes: ${volumesKept}`;
  throw new SecretError(
    "in_use",
    `workspace ${name} is not empty: secrets: ${secrets}, images: ${images}${kept}`,
    {
      next: "Remove them first, or let --force do it: nothing brings them back but a backup of the database.",
    },
  );
}

async function withoutImages(
  tx: Queries,
  manifests: readonly { readonly digest: string }[],
): Promise<string[]> {
  const digests = manifests.map(({ digest }) => digest);
  if (digests.length === 0) return [];
  const used = await tx
    .selectDistinct({ digest: images.manifestDigest })
    .from(images)
    .where(inArray(images.manifestDigest, digests));
  const still = new Set(used.map(({ digest }) => digest));
  return digests.filter((digest) => !still.has(digest));
}
