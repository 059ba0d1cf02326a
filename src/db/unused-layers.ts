import { and, asc, eq, inArray, notExists } from "drizzle-orm";
import type { Queries } from "./database.ts";
import { imageLayers, layers } from "./schema.ts";

/** Deletes those of the layers that no image has. Locked first: a build that takes one up meanwhile is waited for. */
export async function deleteUnusedLayers(tx: Queries, digests: readonly string[]): Promise<string[]> {
  if (digests.length === 0) return [];
  const these = inArray(layers.digest, [...digests]);
  await tx
    .select({ digest: layers.digest })
    .from(layers)
    .where(these)
    .orderBy(asc(layers.digest))
    .for("update");
  const unused = await tx
    .delete(layers)
    .where(and(these, notExists(tx.select().from(imageLayers).where(eq(imageLayers.digest, layers.digest)))))
    .returning({ digest: layers.digest });
  return unused.map((layer) => layer.digest);
}
