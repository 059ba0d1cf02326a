import type { Audit } from "../audit/audit.ts";
import type { OnTransition } from "./transition.ts";

/** Writes down when a secret begins to fare otherwise; a new version that fares as the last one did is no news. */
export function auditTransitions(note: Audit): OnTransition {
  return async ({ from, to }) => {
    if (from?.state === to.state) return;
    await note({
      actor: { kind: "node", id: "health", name: "health" },
      workspaceId: to.workspaceId,
      action: "secret.state",
      target: { kind: "secret", id: to.secretId, name: to.secretName },
      outcome: "ok",
      fields: {
        state: to.state,
        ...(from === undefined ? {} : { before: from.state }),
        ...(to.code === undefined ? {} : { why: to.code }),
        version: String(to.version),
        registry: to.registry,
      },
    });
  };
}
