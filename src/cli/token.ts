import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { Role, type Token, TokenService } from "../gen/oci_node/v1/token_service_pb.ts";
import { command, words } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { parseExpiry } from "./expiry.ts";
import { ago, note, printJson, printLine, printTable } from "./output.ts";
import { dateOf, time } from "./shape.ts";

const roles = {
  owner: Role.OWNER,
  developer: Role.DEVELOPER,
  viewer: Role.VIEWER,
  worker: Role.WORKER,
  admin: Role.ADMIN,
} as const;
type RoleWord = keyof typeof roles;

const tokens = () => createClient(TokenService, connectTransport("administrator"));

function tokenShape(token: Token) {
  return {
    id: token.id,
    name: token.name,
    role: roleWord(token.role),
    workspace: token.workspace || null,
    createdAt: time(token.createdAt),
    expiresAt: time(token.expiresAt),
    revokedAt: time(token.revokedAt),
    lastUsedAt: time(token.lastUsedAt),
  };
}

function roleWord(role: Role): string {
  return Object.entries(roles).find(([, value]) => value === role)?.[0] ?? "unknown";
}

const workspaceFlag = {
  kind: "parsed",
  parse: String,
  optional: true,
  placeholder: "NAME",
} as const;

interface CreateFlags {
  readonly json: boolean;
  readonly workspace?: string;
  readonly role: RoleWord;
  readonly name?: string;
  readonly expires?: string;
}

const create = command<CreateFlags>({
  brief: "Make a token and print it, this once",
  fullDescription:
    "Of a workspace: owner (everything, its tokens included), developer (everything but tokens; may fetch registry " +
    "credentials), viewer (looks). Of the cluster: worker (lets hosts join), admin (workspaces, tokens, keys, workers; " +
    "nothing inside a workspace). Standard output is the token alone.",
  flags: {
    workspace: { ...workspaceFlag, brief: "Whose token; by default the caller's, none for worker and admin" },
    role: { kind: "enum", values: Object.keys(roles), brief: "What it may do" },
    name: {
      kind: "parsed",
      parse: String,
      optional: true,
      placeholder: "NAME",
      brief: "For people: which laptop, which pipeline",
    },
    expires: {
      kind: "parsed",
      parse: String,
      optional: true,
      placeholder: "WHEN",
      brief: "Its end: 12h, 30d, 2027-01-01; by default none",
    },
  },
  async run(flags) {
    const { token, value } = await tokens().createToken({
      name: flags.name ?? "",
      role: roles[flags.role],
      workspace: flags.workspace ?? "",
      ...(flags.expires === undefined ? {} : { expiresAt: timestampFromDate(parseExpiry(flags.expires)) }),
    });
    if (token === undefined) throw new CliError("failed", "the node made no token");
    if (flags.json) printJson({ ...tokenShape(token), token: value });
    else {
      printLine(value);
      note(`token ${token.id}: ${describe(token)}; it is shown this once`);
    }
    return 0;
  },
});

function describe(token: Token): string {
  const whose = token.workspace === "" ? "the cluster's" : `workspace ${token.workspace}`;
  const end = dateOf(token.expiresAt);
  return `${roleWord(token.role)}, ${whose}, ${end === undefined ? "without an end" : `until ${end.toISOString()}`}`;
}

const list = command<{ json: boolean; workspace?: string }>({
  brief: "List tokens; never what they are",
  flags: {
    workspace: { ...workspaceFlag, brief: "Only this workspace's; by default all that the caller may see" },
  },
  async run({ json, workspace = "" }) {
    const found = (await tokens().listTokens({ workspace })).tokens;
    if (json) {
      printJson(found.map(tokenShape));
      return 0;
    }
    printTable(
      ["ID", "NAME", "ROLE", "WORKSPACE", "STATE", "LAST USED"],
      found.map((token) => [
        token.id,
        token.name,
        roleWord(token.role),
        token.workspace || "-",
        state(token),
        token.lastUsedAt === undefined ? "never" : `${ago(dateOf(token.lastUsedAt))} ago`,
      ]),
    );
    return 0;
  },
});

function state(token: Token): string {
  if (token.revokedAt !== undefined) return "revoked";
  const end = dateOf(token.expiresAt);
  if (end === undefined) return "works";
  return end.getTime() <= Date.now() ? "expired" : `until ${end.toISOString().slice(0, 16)}Z`;
}

const revoke = command<{ json: boolean; force: boolean }, [string]>({
  brief: "Revoke a token: it opens nothing any more, at once and for good",
  flags: {
    force: {
      kind: "boolean",
      default: false,
      brief: "Also the one that you call with, or an administrator's last",
    },
  },
  positional: words({ placeholder: "ID", brief: "Id of the token, as `token ls` has it" }),
  async run({ json, force }, id) {
    const { token, joinedWorkers } = await tokens().revokeToken({ id, force });
    if (json) printJson({ revoked: token === undefined ? null : tokenShape(token), joinedWorkers });
    else {
      printLine(id);
      if (joinedWorkers.length > 0) {
        note(
          `workers that joined with it stay: ${joinedWorkers.join(", ")}; to be rid of one: oci-node worker revoke NAME`,
        );
      }
    }
    return 0;
  },
});

export const tokenRoutes = buildRouteMap({
  routes: { ls: list, create, revoke },
  docs: { brief: "Look after the tokens that open the API" },
});
