import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type Workspace as WireWorkspace,
  WorkspaceSchema,
  type WorkspaceService,
} from "../gen/oci_node/v1/workspace_service_pb.ts";
import { type Caller, callerOf } from "../rpc/authentication.ts";
import { logger } from "../std/log.ts";
import { SecretError } from "./error.ts";
import type { TokenStore } from "./token-store.ts";
import type { RemovedWorkspace } from "./workspace-removal-store.ts";
import type { WorkspaceStore } from "./workspace-store.ts";
import { unknownWorkspace, type Workspace, type WorkspaceSummary } from "./workspace-summary-store.ts";

const log = logger("secret");

export interface WorkspaceServiceDependencies {
  readonly workspaces: WorkspaceStore;
  readonly tokens: TokenStore;
  /** Whether there was one of this name. */
  readonly wasRemoved: (name: string) => Promise<boolean>;
  /** Stops the workspace's containers that live, and waits until they have ended. */
  readonly stopContainers: (workspaceId: string, signal: AbortSignal) => Promise<void>;
  /** Removes what stands outside the database: traces, and indexes that are nobody's any more. */
  readonly forget: (workspace: RemovedWorkspace) => Promise<void>;
}

/** A call that was let in before its token was revoked may still begin a container. */
const stopAttemptsMax = 5;

/** Answers WorkspaceService. */
export function workspaceService(
  dependencies: WorkspaceServiceDependencies,
): ServiceImpl<typeof WorkspaceService> {
  const { workspaces } = dependencies;
  return {
    async createWorkspace({ name, reuseName }) {
      if (!reuseName && (await dependencies.wasRemoved(name))) throw usedName(name);
      const { id } = await workspaces.create(name);
      const [made] = await workspaces.summaries(id);
      if (made === undefined) throw unknownWorkspace(name);
      return { workspace: toWire(made) };
    },
    async listWorkspaces(_, context) {
      const { workspaceId } = callerOf(context);
      return { workspaces: (await workspaces.summaries(workspaceId)).map(toWire) };
    },
    async deleteWorkspace({ name, force }, context) {
      const removed = force
        ? await removeByForce(dependencies, name, context.signal)
        : await workspaces.remove(name, { onlyEmpty: true });
      log.info("workspace removed", { workspace: name, id: removed.id });
      await dependencies.forget(removed);
      return { workspace: toWire(removed) };
    },
  };
}

/** Its tokens go first, so that nothing new begins while its containers are stopped. */
async function removeByForce(
  { workspaces, tokens, stopContainers }: WorkspaceServiceDependencies,
  name: string,
  signal: AbortSignal,
): Promise<RemovedWorkspace> {
  const workspace = await workspaces.find(name);
  if (workspace === undefined) throw unknownWorkspace(name);
  const revoked = await tokens.revokeAll(workspace.id);
  for (let attempt = 1; ; attempt += 1) {
    await stopContainers(workspace.id, signal);
    try {
      return { ...(await workspaces.remove(name)), tokens: revoked };
    } catch (error) {
      const more = error instanceof SecretError && error.code === "in_use";
      if (!more || attempt === stopAttemptsMax) throw error;
    }
  }
}

/**
 * The workspace that a caller names; empty: his own. To all but administrators another one is as one that there is not.
 *
 * @throws SecretError `not_found`, or `bad_value` when an administrator names none
 */
export async function namedWorkspace(
  workspaces: WorkspaceStore,
  { role, workspaceId }: Caller,
  name: string,
): Promise<Workspace> {
  if (name === "") {
    if (workspaceId !== undefined) return await workspaces.get(workspaceId);
    throw new SecretError("bad_value", "no workspace is named", { next: "Name one with --workspace NAME." });
  }
  const found = await workspaces.find(name);
  if (found === undefined || (role !== "admin" && found.id !== workspaceId)) throw unknownWorkspace(name);
  return found;
}

function usedName(name: string): SecretError {
  return new SecretError(
    "exists",
    `there was a workspace ${name}, and what was told to trust its name would trust this one`,
    {
      next: `Take another name. Where clouds that trust workspace:${name} and [workspaces.${name}] of the configuration are meant for the new one: --reuse-name.`,
    },
  );
}

function toWire(workspace: WorkspaceSummary): WireWorkspace {
  const { id, name, secrets, images, containers, tokens } = workspace;
  const createdAt = timestampFromDate(workspace.createdAt);
  return create(WorkspaceSchema, { id, name, createdAt, secrets, images, containers, tokens });
}
