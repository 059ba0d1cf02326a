import { sql } from "drizzle-orm";
import type { Database, Queries } from "./database.ts";
import { images, workspaces } from "./schema.ts";

/** A workspace's row, for tests of stores that only need one to be there. */
export async function insertWorkspace(database: Database): Promise<string> {
  const id = crypto.randomUUID();
  const row = { id, name: `w-${id}`, wrappedKey: new Uint8Array(60), keyId: "test" };
  await database.query((db) => db.insert(workspaces).values(row));
  return id;
}

/** A ready image's row. */
export async function insertImage(database: Database, workspaceId: string, change: { status?: string } = {}) {
  const id = `img-${crypto.randomUUID().replaceAll("-", "").slice(0, 24)}`;
  const row = {
    id,
    workspaceId,
    registry: "ghcr.io",
    repository: "o/r",
    reference: "ghcr.io/o/r:1",
    manifestDigest: "sha256:m",
    configDigest: "sha256:c",
    platform: "linux/amd64",
    sizeBytes: 1,
    inodes: 1,
    status: "ready",
    ...change,
  };
  await database.query((db) => db.insert(images).values(row));
  return id;
}

/** Does `held` in a transaction that commits only once `work`, begun meanwhile, waits for it; then gives what came of that. */
export async function whileHeld<T>(
  database: Database,
  held: (tx: Queries) => PromiseLike<unknown>,
  work: () => Promise<T>,
): Promise<PromiseSettledResult<T>> {
  let outcome: Promise<PromiseSettledResult<T>> | undefined;
  await database.transaction(async (tx) => {
    await held(tx);
    outcome = Promise.allSettled([work()]).then(([settled]) => settled);
    const deadline = Date.now() + 10_000;
    while (!(await waits(tx)))
      if (Date.now() > deadline) throw new Error("nothing waits for the transaction");
  });
  if (outcome === undefined) throw new Error("nothing was begun");
  return await outcome;
}

/** Whether any statement waits for a lock of this transaction. */
async function waits(tx: Queries): Promise<boolean> {
  const rows = await tx.execute(
    sql`select 1 from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))`,
  );
  return rows.length > 0;
}
