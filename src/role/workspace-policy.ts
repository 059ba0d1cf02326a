import type { Config, WorkspaceSettings } from "../config.ts";
import { workspaceSettings } from "../config.ts";
import type { ContainerPolicies } from "../container/policy.ts";
import type { WorkspaceStore } from "../secret/workspace-store.ts";

/** What the operator allows a workspace. */
export type WorkspacePolicy = { readonly name: string } & Readonly<WorkspaceSettings>;

export type WorkspacePolicies = (workspaceId: string) => Promise<WorkspacePolicy>;

/**
 * Looks a workspace's policy up by its id. One that the configuration does not name may what is allowed to all. Names are
 * looked up once, as each hand-over asks: a workspace keeps its name for good.
 */
export function workspacePolicies(
  config: Config,
  workspaces: Pick<WorkspaceStore, "get">,
): WorkspacePolicies {
  const names = new Map<string, string>();
  return async (workspaceId) => {
    const name = names.get(workspaceId) ?? (await workspaces.get(workspaceId)).name;
    names.set(workspaceId, name);
    return { name, ...workspaceSettings(config, name) };
  };
}

/** What of it holds for containers. */
export function containerPolicies(policies: WorkspacePolicies): ContainerPolicies {
  return async (workspaceId) => {
    const { host_network, default_network, host_paths, publish } = await policies(workspaceId);
    return {
      hostNetwork: host_network,
      defaultNetwork: default_network,
      hostPaths: host_paths,
      publish,
    };
  };
}
