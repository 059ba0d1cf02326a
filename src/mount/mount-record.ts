import { readdir, readFile, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../std/atomic-file.ts";

/** What a later process needs to go on serving a mount. */
const servedSchema = z.object({
  /** SHA-256 of the image's index, which says what lies where. */
  indexSha256: z.string(),
  /** Positions, among the image's layers, of those that the FUSE mount serves, in the order of its files. */
  layers: z.array(z.number().int().nonnegative()),
});

const recordSchema = z.object({
  version: z.literal(2),
  workspace: z.string(),
  manifestDigest: z.string(),
  root: z.string(),
  /** Absent: all layers were complete, and the tree needs no process. */
  served: servedSchema.optional(),
  /** The cache files of all layers, in the image's order. */
  files: z.array(z.string()),
  spansTotal: z.number(),
  compressedBytes: z.number(),
});

/** What a mount's folder says about itself to a later process. Written before anything is mounted. */
export type MountRecord = z.infer<typeof recordSchema>;

const recordName = "mount.json";

/** A mount's folder under the state directory, and what was written there (`undefined`: nothing readable). */
export interface RecordedMount {
  readonly dir: string;
  readonly record: MountRecord | undefined;
}

export async function writeRecord(dir: string, record: MountRecord): Promise<void> {
  await writeFileAtomic(join(dir, recordName), `${JSON.stringify(record, undefined, 2)}\n`, 0o600);
}

/** All folders under `mountsDir`; an unreadable record is no error, its folder is to be cleared. */
export async function listRecords(mountsDir: string): Promise<RecordedMount[]> {
  const entries = await readdir(mountsDir, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  // The holder's socket is there, too.
  const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  return await Promise.all(names.sort().map((name) => readRecord(join(mountsDir, name))));
}

async function readRecord(dir: string): Promise<RecordedMount> {
  try {
    const parsed = recordSchema.safeParse(JSON.parse(await readFile(join(dir, recordName), "utf8")));
    return { dir, record: parsed.success ? parsed.data : undefined };
  } catch {
    return { dir, record: undefined };
  }
}

/** Removes a mount's folders, and its root when that is in there. Only empty ones go: never into what may be mounted. */
export async function removeMountDir(dir: string, root: string): Promise<void> {
  await rm(join(dir, recordName), { force: true });
  const folders = [join(dir, "blobs"), ...(root.startsWith(dir) ? [root] : []), dir];
  for (const folder of folders)
    await rmdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
}
