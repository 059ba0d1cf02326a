import type { Database } from "./database.ts";
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
