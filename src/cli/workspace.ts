import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { type Workspace, WorkspaceService } from "../gen/oci_node/v1/workspace_service_pb.ts";
import { command, words } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { ago, note, printJson, printLine, printTable } from "./output.ts";
import { dateOf, time } from "./shape.ts";

const workspaces = () => createClient(WorkspaceService, connectTransport("administrator"));

function workspaceShape(workspace: Workspace) {
  const { id, name, secrets, images, containers, tokens } = workspace;
  return { id, name, createdAt: time(workspace.createdAt), secrets, images, containers, tokens };
}

const create = command<{ json: boolean; reuseName: boolean }, [string]>({
  brief: "Make a workspace: secrets, images and containers of its own",
  fullDescription:
    "For administrators. Whoever works in it needs a token: oci-node token create --workspace NAME --role owner.",
  flags: {
    reuseName: {
      kind: "boolean",
      default: false,
      brief: "Although one of that name was removed: what trusts the name will trust this one",
    },
  },
  positional: words({ placeholder: "NAME", brief: "Name of the workspace" }),
  async run({ json, reuseName }, name) {
    const { workspace } = await workspaces().createWorkspace({ name, reuseName });
    if (workspace === undefined) throw new CliError("failed", "the node made no workspace");
    if (json) printJson(workspaceShape(workspace));
    else printLine(workspace.name);
    return 0;
  },
});

const list = command<{ json: boolean }>({
  brief: "List workspaces; without an administrator's token your own",
  async run({ json }) {
    const found = (await workspaces().listWorkspaces({})).workspaces;
    if (json) {
      printJson(found.map(workspaceShape));
      return 0;
    }
    printTable(
      ["NAME", "SECRETS", "IMAGES", "CONTAINERS", "TOKENS", "CREATED"],
      found.map(({ name, secrets, images, containers, tokens, createdAt }) => [
        name,
        ...[secrets, images, containers, tokens].map(String),
        `${ago(dateOf(createdAt))} ago`,
      ]),
    );
    return 0;
  },
});

const remove = command<{ json: boolean; force: boolean }, [string]>({
  brief: "Remove a workspace; refused while anything is in it, unless forced",
  fullDescription:
    "For administrators. Its secrets, images, tokens and ended containers go at once and for good, with the only copy of " +
    "the key that opens them; what the audit says of it stays. Backups of the database still hold it. Clouds that were " +
    "told to trust the workspace by its name would trust the next one of that name, too: take that back there.",
  flags: {
    force: {
      kind: "boolean",
      default: false,
      brief: "Also one with secrets and images; its tokens are revoked and its containers stopped first",
    },
  },
  positional: words({ placeholder: "NAME", brief: "Name of the workspace" }),
  async run({ json, force }, name) {
    const { workspace } = await workspaces().deleteWorkspace({ name, force });
    if (workspace === undefined) throw new CliError("failed", "the node removed no workspace");
    if (json) {
      printJson({ removed: name, workspace: workspaceShape(workspace) });
      return 0;
    }
    printLine(name);
    const { secrets, images, tokens } = workspace;
    note(`removed with it: secrets: ${secrets}, images: ${images}, tokens: ${tokens}`);
    return 0;
  },
});

export const workspaceRoutes = buildRouteMap({
  routes: { ls: list, create, rm: remove },
  docs: { brief: "Look after workspaces: tenants that see nothing of each other" },
});
