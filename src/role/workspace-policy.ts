import type { Config, WorkspaceSettings } from "../config.ts";
import { workspaceSettings } from "../config.ts";
import type { WorkspaceStore } from "../secret/workspace-store.ts";

/** What the operator allows a workspace. */
export type WorkspacePolicy = { readonly name: string } & Readonly<WorkspaceSettings>;

export type WorkspacePolicies = (workspaceId: string) => Promise<WorkspacePolicy>;

/** Looks a workspace's policy up by its id. One that the configuration does not name may what is allowed to all. */
export function workspacePolicies(
  config: Config,
  workspaces: Pick<WorkspaceStore, "get">,
): WorkspacePolicies {
  return async (workspaceId) => {
    const { name } = await workspaces.get(workspaceId);
    return { name, ...workspaceSettings(config, name) };
  };
}
