import { once } from "node:events";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { type AuditEvent, AuditService } from "../gen/oci_node/v1/audit_service_pb.ts";
import { parseDuration } from "../std/duration.ts";
import { printableJson } from "../std/printable.ts";
import { command } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { note } from "./output.ts";
import { dateOf } from "./shape.ts";

interface AuditFlags {
  readonly json: boolean;
  readonly since?: Date;
  readonly workspace?: string;
  readonly action?: string;
  readonly target?: string;
  readonly limit?: number;
}

/** Of the table where nobody asks for more: what fits somebody's eyes. */
const shownLatest = 100;

const text = (brief: string, placeholder: string) =>
  ({ kind: "parsed", parse: String, optional: true, brief, placeholder }) as const;

export const audit = command<AuditFlags>({
  brief: "Who did what to which secret, image, container or token, from where",
  fullDescription:
    "Who did what to which secret, image, container or token, from where: what was done, and what was refused. An owner " +
    `sees his workspace's events, an administrator all. The table shows the latest ${shownLatest} unless --limit or --since says ` +
    "otherwise; --json prints all, one object per line, the oldest first: an export.",
  flags: {
    since: {
      kind: "parsed",
      parse: parseSince,
      optional: true,
      brief: "Only what is younger: 24h, 7d, 2027-01-31, or an RFC 3339 time",
      placeholder: "TIME",
    },
    workspace: text("Only this workspace's, by name or id; also one that is gone", "W"),
    action: text("Only this action, such as secret.update, or all of a kind: secret", "A"),
    target: text("Only what was done to this or with it, by name or id", "T"),
    limit: {
      kind: "parsed",
      parse: parseLimit,
      optional: true,
      brief: "The latest N only",
      placeholder: "N",
    },
  },
  async run({ json, since, workspace = "", action = "", target = "", limit }) {
    const all = json || since !== undefined;
    const pages = createClient(AuditService, connectTransport("administrator")).listAuditEvents({
      ...(since === undefined ? {} : { since: timestampFromDate(since) }),
      workspace,
      action,
      target,
      limit: limit ?? (all ? 0 : shownLatest),
    });
    const table = createTable();
    let count = 0;
    for await (const { events } of pages) {
      const lines = json ? events.map((event) => printableJson(eventShape(event))) : table(events);
      count += events.length;
      await print(`${lines.join("\n")}\n`);
    }
    if (count === 0 && !json) note("no events");
    return 0;
  },
});

/** What `--json` shows of an event; absent is null. */
export function eventShape(event: AuditEvent) {
  return {
    id: Number(event.id),
    at: dateOf(event.at)?.toISOString() ?? null,
    actor: { kind: event.actorKind, id: event.actorId, name: event.actorName, role: event.role || null },
    workspace: event.workspace || null,
    action: event.action,
    target: { kind: event.targetKind, id: event.targetId || null, name: event.targetName || null },
    outcome: event.outcome,
    code: event.code || null,
    address: event.address || null,
    fields: event.fields,
  };
}

const header = ["TIME", "ACTOR", "ROLE", "WORKSPACE", "ACTION", "OUTCOME", "FROM", "TARGET"];
/** What is longer moves its own line only. */
const widthMax = 44;

/** Prints pages as one table: its columns are as wide as the first page wants them. */
function createTable(): (events: readonly AuditEvent[]) => string[] {
  let widths: number[] | undefined;
  return (events) => {
    const rows = events.map((event) => [
      dateOf(event.at)
        ?.toISOString()
        .replace(/\.\d+Z$/, "Z") ?? "",
      event.actorName || event.actorId,
      event.role || event.actorKind,
      event.workspace || "-",
      event.action,
      event.outcome,
      event.address || "-",
      targetText(event),
    ]);
    const lines = widths === undefined ? [header, ...rows] : rows;
    widths ??= header.map((_, at) =>
      Math.min(widthMax, Math.max(...lines.map((cells) => cells[at]?.length ?? 0))),
    );
    const padded = widths;
    return lines.map((cells) =>
      cells
        .map((cell, at) => cell.padEnd(padded[at] ?? 0))
        .join("  ")
        .trimEnd(),
    );
  };
}

function targetText({ targetKind, targetName, targetId, code, fields }: AuditEvent): string {
  const facts = Object.entries(fields).map(([name, value]) => `${name}=${value}`);
  const why = code === "" ? [] : [`(${code})`];
  return [targetName || targetId || targetKind, ...why, ...facts].join(" ");
}

/** Waits for whoever reads: a page is let go before the next is asked for. */
async function print(lines: string): Promise<void> {
  if (!process.stdout.write(lines)) await once(process.stdout, "drain");
}

function parseSince(written: string): Date {
  const days = /^(\d+)d$/.exec(written)?.[1];
  const ago = days === undefined ? parseDuration(written) : Number(days) * 24 * 3_600_000;
  const since = ago === undefined ? new Date(written) : new Date(Date.now() - ago);
  if (/^\d/.test(written) && !Number.isNaN(since.getTime())) return since;
  throw new CliError("usage", `${JSON.stringify(written)} is no time: write 24h, 7d or 2027-01-31`);
}

function parseLimit(written: string): number {
  const limit = Number(written);
  if (/^\d+$/.test(written) && limit > 0 && limit < 2 ** 31) return limit;
  throw new CliError("usage", `${JSON.stringify(written)} is no number of events: write one such as 20`);
}
