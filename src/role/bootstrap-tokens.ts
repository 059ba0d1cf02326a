import { hostname } from "node:os";
import { join } from "node:path";
import type { Config } from "../config.ts";
import { removeTorn, writeFileAtomic } from "../std/atomic-file.ts";
import { PrivateFileError, readPrivateFile } from "../std/private-file.ts";
import type { ControlPlane } from "./control-plane.ts";

export const defaultWorkspace = "default";

type Stores = Pick<ControlPlane, "tokens" | "workspaces">;

/** What opens the node that starts: for whoever sits at its terminal. */
export interface BootstrapTokens {
  /** Of the default workspace; a new one with each start. */
  readonly owner: string;
  /** Of the cluster, as it stands in the data folder. */
  readonly admin: string;
}

/** Before several gateways shared a database, the tokens of all starts had this name. */
const earlierName = "issued at start";

/** The tokens that a gateway gives out by itself. They carry its host and data folder, so that no gateway takes another's. */
export async function bootstrapTokens(config: Config, plane: Stores): Promise<BootstrapTokens> {
  const where = `${hostname()}:${config.data_dir}`;
  return { owner: await issueOwnerToken(plane, where), admin: await keepAdminToken(config, plane, where) };
}

/** What the start before this one gave out counts no more. */
async function issueOwnerToken({ tokens, workspaces }: Stores, where: string): Promise<string> {
  const { id: workspaceId } = await workspaces.ensure(defaultWorkspace);
  const name = `${earlierName} of ${where}`;
  for (const given of [name, earlierName]) await tokens.removeNamed({ workspaceId }, given);
  return (await tokens.create({ workspaceId, role: "owner", name })).token;
}

/** An administrator's token in a file for root's eyes; made when it is missing or counts no more. */
async function keepAdminToken(config: Config, { tokens }: Stores, where: string): Promise<string> {
  const path = join(config.data_dir, "admin-token");
  await removeTorn(path);
  const kept = readToken(path);
  if (kept !== undefined && (await tokens.verify(kept))?.role === "admin") return kept;
  const name = `admin token of ${where}`;
  await tokens.removeNamed("cluster", name);
  const { token } = await tokens.create({ role: "admin", name });
  await writeFileAtomic(path, `${token}\n`, 0o600);
  return token;
}

function readToken(path: string): string | undefined {
  try {
    return readPrivateFile(path, { holds: "the administrator's token" }).trim();
  } catch (error) {
    if (error instanceof PrivateFileError) throw error;
    return undefined;
  }
}
