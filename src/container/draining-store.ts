import { and, inArray, isNull, sql } from "drizzle-orm";
import { notify, type Queries } from "../db/database.ts";
import { containerEvents, containers } from "../db/schema.ts";

/** Marks containers as getting no requests any more, in a transaction of the caller's, and tells the watchers. */
export async function drainIn(tx: Queries, ids: readonly string[], reason: string): Promise<void> {
  const rows = await tx
    .update(containers)
    .set({ drainingAt: sql`now()`, updatedAt: sql`now()` })
    .where(and(inArray(containers.id, [...ids]), isNull(containers.drainingAt)))
    .returning({
      containerId: containers.id,
      workspaceId: containers.workspaceId,
      deploymentId: containers.deploymentId,
    });
  if (rows.length === 0) return;
  const at = new Date();
  await tx.insert(containerEvents).values(
    rows.map(({ containerId, workspaceId }) => ({
      containerId,
      workspaceId,
      at,
      kind: "draining",
      message: reason,
    })),
  );
  for (const { containerId, workspaceId, deploymentId } of rows)
    await notify(tx, "container_changed", [workspaceId, containerId, deploymentId ?? ""].join(" ").trimEnd());
}
