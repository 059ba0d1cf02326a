import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import {
  type CreateTokenRequest,
  TokenSchema,
  type TokenService,
  Role as WireRole,
  type Token as WireToken,
} from "../gen/oci_node/v1/token_service_pb.ts";
import { type Caller, callerOf } from "../rpc/authentication.ts";
import { SecretError } from "./error.ts";
import { type Role, type TokenMetadata, type TokenStore, unknownToken } from "./token-store.ts";
import { namedWorkspace } from "./workspace-service.ts";
import type { WorkspaceStore } from "./workspace-store.ts";

export interface TokenServiceDependencies {
  readonly tokens: TokenStore;
  readonly workspaces: WorkspaceStore;
  /** A worker's token as it is handed over: with what tells the cluster's authority from another one. */
  readonly formatJoinToken: (token: string) => string | Promise<string>;
  /** Names of the workers that joined with a token. */
  readonly joinedWith: (tokenId: string) => Promise<readonly string[]>;
}

const wireRoles: Readonly<Record<Role, WireRole>> = {
  owner: WireRole.OWNER,
  developer: WireRole.DEVELOPER,
  viewer: WireRole.VIEWER,
  worker: WireRole.WORKER,
  admin: WireRole.ADMIN,
};
const nameLengthMax = 100;

/** Answers TokenService: an administrator makes, sees and revokes any token; an owner those of his workspace. */
export function tokenService(dependencies: TokenServiceDependencies): ServiceImpl<typeof TokenService> {
  const { tokens, workspaces } = dependencies;
  return {
    async createToken(request, context) {
      const caller = callerOf(context);
      const role = roleOf(request.role);
      const name = nameOf(request.name, role);
      const expiresAt = expiryOf(request.expiresAt);
      const workspaceId = await ownerOf(workspaces, caller, role, request);
      const made = await tokens.create({ workspaceId, role, name, expiresAt, createdBy: caller.tokenId });
      const value = role === "worker" ? await dependencies.formatJoinToken(made.token) : made.token;
      return { token: toWire(await tokens.get(made.tokenId)), value };
    },
    async listTokens({ workspace }, context) {
      const caller = callerOf(context);
      const all = caller.role === "admin" && workspace === "";
      const owner = all ? "all" : { workspaceId: (await namedWorkspace(workspaces, caller, workspace)).id };
      return { tokens: (await tokens.list(owner)).map(toWire) };
    },
    async revokeToken({ id, force }, context) {
      const caller = callerOf(context);
      const token = await tokens.get(id);
      if (caller.role !== "admin" && token.workspaceId !== caller.workspaceId) throw unknownToken(id);
      if (id === caller.tokenId && !force) {
        throw new SecretError("in_use", `token ${id} is the one that you call with`, {
          next: "Call with another one, or repeat with --force.",
        });
      }
      await tokens.revoke(id, { keepAdmin: !force });
      return { token: toWire(await tokens.get(id)), joinedWorkers: [...(await dependencies.joinedWith(id))] };
    },
  };
}

/** The workspace that a new token is for; undefined: the cluster. */
async function ownerOf(
  workspaces: WorkspaceStore,
  caller: Caller,
  role: Role,
  { workspace }: CreateTokenRequest,
): Promise<string | undefined> {
  if (role !== "worker" && role !== "admin") return (await namedWorkspace(workspaces, caller, workspace)).id;
  if (caller.role !== "admin") {
    throw new ConnectError(`only an administrator makes tokens with the role ${role}`, Code.PermissionDenied);
  }
  if (workspace === "") return undefined;
  throw new SecretError("bad_value", `a token with the role ${role} has no workspace`, {
    next: "Leave --workspace out.",
  });
}

function roleOf(wire: WireRole): Role {
  const [role] = Object.entries(wireRoles).find(([, value]) => value === wire) ?? [];
  if (role !== undefined) return role as Role;
  throw new SecretError("bad_value", "the token has no role that there is", {
    next: `Roles: ${Object.keys(wireRoles).join(", ")}.`,
  });
}

function nameOf(name: string, role: Role): string {
  if (name === "") return role;
  if (name.length <= nameLengthMax && name.isWellFormed() && !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(name))
    return name;
  throw new SecretError("bad_name", "a token cannot have this name", {
    next: `Use up to ${nameLengthMax} characters that can be seen.`,
  });
}

function expiryOf(wire: Timestamp | undefined): Date | undefined {
  if (wire === undefined) return undefined;
  const at = timestampDate(wire);
  // RFC 3339 ends with the year 9999.
  if (at.getTime() > Date.now() && at.getUTCFullYear() <= 9999) return at;
  const past = at.getTime() <= Date.now();
  throw new SecretError(
    "bad_value",
    past ? "the token would be expired already" : "the token's end is no time",
    {
      next: "Give a time to come, such as --expires 30d.",
    },
  );
}

function toWire(token: TokenMetadata): WireToken {
  const time = (at: Date | undefined) => (at === undefined ? undefined : timestampFromDate(at));
  const optional = {
    expiresAt: time(token.expiresAt),
    revokedAt: time(token.revokedAt),
    lastUsedAt: time(token.lastUsedAt),
  };
  const present = Object.fromEntries(Object.entries(optional).filter(([, at]) => at !== undefined));
  return create(TokenSchema, {
    id: token.tokenId,
    name: token.name,
    role: wireRoles[token.role],
    workspace: token.workspaceName ?? "",
    createdAt: timestampFromDate(token.createdAt),
    ...present,
  });
}
