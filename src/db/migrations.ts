import { createHash } from "node:crypto";
import type { MigrationMeta } from "drizzle-orm/migrator";
import initial from "../../drizzle/0000_initial.sql" with { type: "text" };
import imageCredential from "../../drizzle/0001_image-credential.sql" with { type: "text" };
import tenantsKeysHealthAudit from "../../drizzle/0002_tenants-keys-health-audit.sql" with { type: "text" };
import webhookDisabled from "../../drizzle/0003_webhook-disabled.sql" with { type: "text" };
import openDeliveries from "../../drizzle/0004_open-deliveries.sql" with { type: "text" };
import endpointsContainers from "../../drizzle/0005_endpoints-containers.sql" with { type: "text" };
import troubleFromContainers from "../../drizzle/0006_trouble-from-containers.sql" with { type: "text" };
import workerRequestVersion from "../../drizzle/0007_worker-request-version.sql" with { type: "text" };
import journal from "../../drizzle/meta/_journal.json" with { type: "json" };

/** Every migration's text by its tag in the journal. A compiled executable has no folder to read: add a line here. */
const texts: Readonly<Record<string, string>> = {
  "0000_initial": initial,
  "0001_image-credential": imageCredential,
  "0002_tenants-keys-health-audit": tenantsKeysHealthAudit,
  "0003_webhook-disabled": webhookDisabled,
  "0004_open-deliveries": openDeliveries,
  "0005_endpoints-containers": endpointsContainers,
  "0006_trouble-from-containers": troubleFromContainers,
  "0007_worker-request-version": workerRequestVersion,
};

/** The migrations in the journal's order, shaped as drizzle-orm 0.45 makes them from a folder. */
export function migrations(): MigrationMeta[] {
  return journal.entries.map((entry) => {
    const text = texts[entry.tag];
    if (text === undefined)
      throw new Error(`drizzle/${entry.tag}.sql is in the journal but not in src/db/migrations.ts`);
    return {
      sql: text.split("--> statement-breakpoint"),
      bps: entry.breakpoints,
      folderMillis: entry.when,
      hash: createHash("sha256").update(text).digest("hex"),
    };
  });
}
