import type { Audit } from "../audit/audit.ts";
import type { Config } from "../config.ts";
import type { ProvidersOf } from "../credential/issuer.ts";
import type { Database } from "../db/database.ts";
import { auditTransitions } from "../health/audit-transitions.ts";
import { HealthStore } from "../health/health-store.ts";
import { HealthMonitor } from "../health/monitor.ts";
import { ReportStore } from "../health/report-store.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { Vault } from "../secret/vault.ts";

/** What gateways and schedulers know of how secrets fare. */
export interface SecretHealthParts {
  readonly store: HealthStore;
  readonly reports: ReportStore;
  readonly monitor: HealthMonitor;
}

export function openSecretHealth(
  config: Config,
  database: Database,
  dependencies: {
    readonly registry: RegistryClient;
    readonly providersOf: ProvidersOf;
    readonly vault: Vault;
    readonly note: Audit;
  },
): SecretHealthParts {
  const store = new HealthStore(database);
  const { check_interval: intervalMs, probe_push: probePush } = config.health;
  const monitor = new HealthMonitor({ ...dependencies, store, intervalMs, probePush });
  monitor.onTransition(auditTransitions(dependencies.note));
  return { store, monitor, reports: new ReportStore(database) };
}
