import { expect, test } from "bun:test";
import type { AuditEvent } from "../audit/audit.ts";
import { auditTransitions } from "./audit-transitions.ts";
import type { SecretHealth } from "./health.ts";

test("a secret that fares otherwise is written down, and one that fares as before is not", async () => {
  const events: AuditEvent[] = [];
  const tell = auditTransitions(async (event) => void events.push(event));
  const health = {
    secretId: "s1",
    workspaceId: "w1",
    secretName: "acme",
    registry: "registry.test",
    version: 1,
  } as SecretHealth;
  const at = new Date();
  const ok = { ...health, state: "ok" } as SecretHealth;
  const failing = { ...health, state: "failing", version: 2, code: "unauthorized" } as SecretHealth;
  await tell({ from: undefined, to: ok, at });
  await tell({ from: ok, to: { ...ok, version: 2 }, at });
  await tell({ from: ok, to: failing, at });
  expect(events.map(({ action, target, fields }) => [action, target.name, fields])).toEqual([
    ["secret.state", "acme", { state: "ok", version: "1", registry: "registry.test" }],
    [
      "secret.state",
      "acme",
      { state: "failing", before: "ok", why: "unauthorized", version: "2", registry: "registry.test" },
    ],
  ]);
});
