import { credentialRows } from "./hostile-credentials.test-kit.ts";
import { hostRows } from "./hostile-hosts.test-kit.ts";
import { realmRows } from "./hostile-realms.test-kit.ts";
import { redirectRows } from "./hostile-redirects.test-kit.ts";
import type { HostileRow } from "./hostile-row.test-kit.ts";
import { webhookRows } from "./hostile-webhooks.test-kit.ts";

/** The corpus: everything by which a tenant, a registry, a token service or DNS may lead a credential or a connection astray. */
export const hostileRows: readonly HostileRow[] = [
  ...hostRows,
  ...realmRows,
  ...redirectRows,
  ...credentialRows,
  ...webhookRows,
];

/** The row with the operator's leave, or with the right host in the wrong one's place. */
export function twinOf(row: HostileRow): HostileRow[] {
  return row.twin === undefined ? [] : [{ ...row, ...row.twin, name: `${row.name}, allowed` }];
}
