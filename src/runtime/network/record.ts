import { readFile, rename, writeFile } from "node:fs/promises";
import { z } from "zod";

export const publishedPort = z.object({
  hostAddress: z.string(),
  hostPort: z.number().int(),
  containerPort: z.number().int(),
  protocol: z.enum(["tcp", "udp"]),
});

const recordSchema = z.object({
  version: z.literal(1),
  subnet: z.string(),
  ports: z.array(publishedPort).readonly(),
  /** Absent: its plugin was not through when the record was written. */
  address: z.string().optional(),
});

/** What undoing a container's network takes, by whatever process and after whatever crash: kept in its directory. */
export type NetworkRecord = z.infer<typeof recordSchema>;

/** Not synced: with the host's power its networks go too. */
export async function writeNetworkRecord(path: string, record: NetworkRecord): Promise<void> {
  await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

/** `undefined` where a container has no network of its own, or its making did not begin. */
export async function readNetworkRecord(path: string): Promise<NetworkRecord | undefined> {
  try {
    return recordSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return undefined;
  }
}
