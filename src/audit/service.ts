import { create } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  AuditEventSchema,
  type AuditService,
  type ListAuditEventsRequest,
  type AuditEvent as WireEvent,
} from "../gen/oci_node/v1/audit_service_pb.ts";
import { callerOf } from "../rpc/authentication.ts";
import { AuditError } from "./error.ts";
import type { AuditFilter, AuditRow, AuditStore } from "./store.ts";

/** Answers AuditService: an administrator sees everything, others what happened in their workspace. */
export function auditService(store: AuditStore): ServiceImpl<typeof AuditService> {
  return {
    async *listAuditEvents(request, context) {
      const filter = filterOf(request);
      const { workspaceId } = callerOf(context);
      if (workspaceId !== undefined) await refuseOthers(store, workspaceId, request.workspace);
      for await (const rows of store.list({ ...filter, workspaceId })) {
        context.signal.throwIfAborted();
        yield { events: rows.map(toWire) };
      }
    },
  };
}

function filterOf({ since, workspace, action, target, limit }: ListAuditEventsRequest): AuditFilter {
  if (limit < 0) throw new AuditError("bad_filter", "the limit must not be negative");
  return {
    since: since === undefined ? undefined : timestampDate(since),
    workspace: workspace || undefined,
    action: action || undefined,
    target: target || undefined,
    limit: limit || undefined,
  };
}

/** The same words for a workspace that there is and for one that there is not. */
async function refuseOthers(store: AuditStore, own: string, wanted: string): Promise<void> {
  if (wanted === "" || wanted === own || wanted === (await store.workspaceName(own))) return;
  throw new AuditError("not_allowed", "this token sees the events of its own workspace only", {
    next: "Leave --workspace out, or use a token with the role admin.",
  });
}

function toWire(row: AuditRow): WireEvent {
  return create(AuditEventSchema, {
    id: BigInt(row.id),
    at: timestampFromDate(row.at),
    actorKind: row.actorKind,
    actorId: row.actorId,
    actorName: row.actorName,
    role: row.role ?? "",
    workspace: row.workspaceName ?? row.workspaceId ?? "",
    action: row.action,
    targetKind: row.targetKind,
    targetId: row.targetId ?? "",
    targetName: row.targetName ?? "",
    outcome: row.outcome,
    code: row.code ?? "",
    address: row.address ?? "",
    fields: row.fields as Record<string, string>,
  });
}
