import { SecretError } from "../secret/error.ts";
import type { CredentialToTry, SecretChecks, SecretReport, Tried } from "../secret/service.ts";
import { type CheckOutcome, placeNamed } from "./check.ts";
import { wireHealth } from "./health-service.ts";
import type { HealthStore } from "./health-store.ts";
import type { HealthMonitor } from "./monitor.ts";
import type { ReportStore } from "./report-store.ts";

export interface SecretChecksDependencies {
  readonly monitor: HealthMonitor;
  readonly store: HealthStore;
  readonly reports: ReportStore;
}

/** Tries credentials that are to be kept as secrets, and shows how those fare that are. */
export function secretChecks({ monitor, store, reports }: SecretChecksDependencies): SecretChecks {
  const note = (found?: { readonly outcome: CheckOutcome; readonly at: Date }): Tried => ({
    async kept({ workspaceId, name, version }, facts) {
      const secret = await store.secret(workspaceId, name);
      if (secret === undefined) return;
      await store.setFacts(secret.secretId, facts);
      const { declaredExpiry = secret.declaredExpiry } = facts;
      const kept = { ...secret, version, declaredExpiry: declaredExpiry ?? undefined };
      if (found === undefined) await monitor.keptUnchecked(kept, monitor.now());
      else await monitor.kept(kept, found.outcome, found.at);
    },
  });
  return {
    async tryNew({ workspaceId, credential, repository, secretName }: CredentialToTry, signal) {
      const secret = secretName === undefined ? undefined : await store.secret(workspaceId, secretName);
      const places =
        secret !== undefined
          ? await store.places(secret)
          : repository === undefined
            ? []
            : [placeNamed(repository)];
      const at = monitor.now();
      const outcome = await monitor.tryNew(workspaceId, credential, places, signal);
      if (outcome.verdict !== "refused") return note({ outcome, at });
      throw new SecretError("refused", `${outcome.reason ?? "the credential is refused"}; nothing was kept`, {
        next: `${outcome.next ?? "Check the credential."} To keep it all the same: --unchecked.`,
      });
    },
    withoutTrial: () => note(),
    async reports(workspaceId, name) {
      const list = await reports.reports(workspaceId, name);
      return new Map(
        list.map((report): [string, SecretReport] => [
          report.secretId,
          { ...report, health: report.health === undefined ? undefined : wireHealth(report) },
        ]),
      );
    },
  };
}
