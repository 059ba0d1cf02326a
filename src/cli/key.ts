import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { type Key, KeyService } from "../gen/oci_node/v1/key_service_pb.ts";
import { command, words } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { exportKey, importKey } from "./key-copy.ts";
import { ago, note, printJson, printLine, printTable } from "./output.ts";
import { dateOf } from "./shape.ts";

const progressEveryMs = 1_000;

const list = command<{ json: boolean }>({
  brief: "List key-encryption keys: what is under each, and who lacks it",
  fullDescription:
    "A key-encryption key wraps the workspaces' keys, which wrap everything that is secret. Without it nothing that is under it can be " +
    "opened by anybody: keep a copy (`key export`) apart from the database.",
  async run(flags) {
    const { keys } = await createClient(KeyService, connectTransport("administrator")).listKeys({});
    if (flags.json) {
      printJson(keys.map(keyShape));
      return 0;
    }
    printTable(
      ["KEY", "KIND", "STATE", "WORKSPACES", "IDENTITY KEYS", "AUTHORITIES", "CREATED", "COPY"],
      keys.map((key) => [
        key.id,
        key.kind,
        stateOf(key),
        String(key.workspaces),
        String(key.identityKeys),
        String(key.authorities),
        key.createdAt === undefined ? "" : `${ago(dateOf(key.createdAt))} ago`,
        copyOf(key),
      ]),
    );
    for (const text of keys.flatMap(warningsOf)) note(text);
    return 0;
  },
});

const rotate = command<{ json: boolean; to?: string }>({
  brief: "Go on to another key-encryption key, while everything is in use",
  fullDescription:
    "Makes a new key file (or takes the key named with --to, as one must from a key service on) and wraps everything anew with it. Nothing stops meanwhile. An interrupted " +
    "rotation goes on with --to and the new key's id. The old key file is needed until `key retire` says that it may go.",
  flags: {
    to: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Id of a key, or its name in [keys] of the configuration; default: a new key file",
      placeholder: "ID|NAME",
    },
  },
  async run(flags) {
    const abort = new AbortController();
    const interrupt = () => abort.abort();
    process.once("SIGINT", interrupt);
    const last = { to: "", rewrapped: 0, left: 0, done: false };
    let toldAtMs = 0;
    try {
      const client = createClient(KeyService, connectTransport("administrator"));
      for await (const { to, rewrapped, left, done } of client.rotateKey(
        { to: flags.to ?? "" },
        { signal: abort.signal },
      )) {
        Object.assign(last, { to, rewrapped, left, done });
        if (flags.json || left === 0 || performance.now() - toldAtMs < progressEveryMs) continue;
        toldAtMs = performance.now();
        note(`${rows(rewrapped)} rewrapped, ${left} left`);
      }
    } catch (error) {
      if (!abort.signal.aborted) {
        if (last.to !== "")
          note(`note: what is done stays; it goes on with: oci-node key rotate --to ${last.to}`);
        throw error;
      }
    } finally {
      process.removeListener("SIGINT", interrupt);
    }
    if (!last.done) throw interrupted(last.to);
    if (flags.json) printJson({ primary: last.to, rewrapped: last.rewrapped, left: last.left });
    else {
      printLine(`${last.to}: primary; ${rows(last.rewrapped)} rewrapped, ${last.left} left on other keys`);
      note(
        `note: keep a copy of it: oci-node key export --key ${last.to} --to FILE; for the old one: oci-node key retire ID`,
      );
    }
    return 0;
  },
});

const retire = command<{ json: boolean }, [string]>({
  brief: "Forget a key that nothing is under any more; its file stays until you remove it",
  positional: words({ placeholder: "ID", brief: "Id of the key" }),
  async run(flags, id) {
    const { key } = await createClient(KeyService, connectTransport("administrator")).retireKey({ id });
    if (key === undefined) throw new CliError("failed", "the node retired no key");
    if (flags.json) {
      printJson(keyShape(key));
      return 0;
    }
    printLine(`${id}: retired`);
    for (const text of afterRetiring(key)) note(text);
    return 0;
  },
});

function afterRetiring({ kind, place }: Key): string[] {
  const backups =
    "note: backups of the database from before the rotation need this key still: with it, and only with it, they open";
  if (kind === "file") {
    const which = place === "" ? "its key file" : place;
    return [
      `note: ${which} may go now, on every gateway and scheduler, as soon as five minutes are over`,
      backups,
    ];
  }
  return ["note: take it out of [keys] of the configuration", backups];
}

function interrupted(to: string): CliError {
  return new CliError("failed", "the rotation was interrupted; what is under either key opens", {
    next: to === "" ? "See `oci-node key ls`." : `It goes on with: oci-node key rotate --to ${to}`,
  });
}

function rows(count: number): string {
  return count === 1 ? "1 row" : `${count} rows`;
}

function stateOf({ primary, retiredAt }: Key): string {
  if (primary) return "primary";
  return retiredAt === undefined ? "" : "retired";
}

function copyOf({ kind, exportedAt }: Key): string {
  if (kind.endsWith("-kms")) return "in the service";
  if (kind === "env") return "yours to keep";
  return exportedAt === undefined ? "none known" : `${ago(dateOf(exportedAt))} ago`;
}

/** What can go wrong with a key, before it does. */
function warningsOf(key: Key): string[] {
  const { id, kind, missingAt, place } = key;
  const under = key.workspaces + key.identityKeys + key.authorities;
  const counts = key.primary || under > 0;
  const warnings: string[] = [];
  if (counts && missingAt.length > 0)
    warnings.push(`warning: ${missingAt.join(", ")} cannot use the key ${id}`);
  if (under > 0 && !key.primary) {
    warnings.push(`warning: ${rows(under)} left under the key ${id}, which is not primary`);
  }
  if (counts && kind === "file" && key.exportedAt === undefined) {
    warnings.push(
      `warning: no copy of the key ${id} is known; if ${place === "" ? "its file" : place} is lost, so is every secret: oci-node key export --key ${id} --to FILE`,
    );
  }
  return warnings;
}

function keyShape(key: Key) {
  return {
    id: key.id,
    kind: key.kind,
    primary: key.primary,
    place: key.place || null,
    workspaces: key.workspaces,
    identityKeys: key.identityKeys,
    authorities: key.authorities,
    missingAt: key.missingAt,
    createdAt: dateOf(key.createdAt)?.toISOString() ?? null,
    exportedAt: dateOf(key.exportedAt)?.toISOString() ?? null,
    retiredAt: dateOf(key.retiredAt)?.toISOString() ?? null,
  };
}

export const keyRoutes = buildRouteMap({
  routes: { ls: list, rotate, retire, export: exportKey, import: importKey },
  docs: { brief: "Look after the keys that everything secret is under" },
});
