import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type HealthService,
  SecretHealthSchema,
  CredentialRights as WireRights,
  type SecretHealth as WireSecretHealth,
  HealthState as WireState,
} from "../gen/oci_node/v1/health_service_pb.ts";
import type { CredentialRights } from "../registry/rights.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { SecretError } from "../secret/error.ts";
import { opaqueType } from "../secret/opaque.ts";
import { unknownSecret } from "../secret/store.ts";
import type { HealthState } from "./health.ts";
import type { HealthStore } from "./health-store.ts";
import type { HealthMonitor } from "./monitor.ts";
import type { ReportStore, SecretReport } from "./report-store.ts";

export interface HealthServiceDependencies {
  readonly monitor: HealthMonitor;
  readonly store: HealthStore;
  readonly reports: ReportStore;
}

type Handlers = Pick<ServiceImpl<typeof HealthService>, "listSecretHealth" | "checkSecret">;

/** Answers the part of HealthService that is about secrets, for the workspace of the caller. */
export function healthService({ monitor, store, reports }: HealthServiceDependencies): Handlers {
  return {
    async listSecretHealth({ secretName }, context) {
      const name = secretName === "" ? undefined : secretName;
      const list = await reports.reports(workspaceOf(context), name);
      if (name !== undefined && list.length === 0) throw unknownSecret(name);
      if (name !== undefined && list[0]?.type === opaqueType) throw notChecked(name);
      return { secrets: list.filter(({ type }) => type !== opaqueType).map(wireHealth) };
    },
    async checkSecret({ secretName }, context) {
      const workspaceId = workspaceOf(context);
      const secret = await store.secret(workspaceId, secretName);
      if (secret === undefined) throw unknownSecret(secretName);
      const [known] = await reports.reports(workspaceId, secretName);
      if (known?.type === opaqueType) throw notChecked(secretName);
      await monitor.check(secret, context.signal);
      const [report] = await reports.reports(workspaceId, secretName);
      if (report === undefined) throw unknownSecret(secretName);
      return { health: wireHealth(report) };
    },
  };
}

function notChecked(name: string): SecretError {
  return new SecretError(
    "bad_value",
    `the secret ${name} is a value for containers: there is nobody to check it with`,
    {
      next: `See what uses it: oci-node secret inspect ${name}.`,
    },
  );
}

const states: Readonly<Record<HealthState, WireState>> = {
  ok: WireState.OK,
  expiring: WireState.EXPIRING,
  failing: WireState.FAILING,
  unknown: WireState.UNKNOWN,
};
const rights: Readonly<Record<CredentialRights, WireRights>> = {
  pull: WireRights.PULL,
  push: WireRights.PUSH,
  unknown: WireRights.UNKNOWN,
};

/** One whose check is still to come is `unknown`. */
export function wireHealth(report: SecretReport): WireSecretHealth {
  const { health } = report;
  return create(SecretHealthSchema, {
    secretName: report.name,
    secretId: report.secretId,
    registry: report.registry,
    version: report.version,
    state: states[health?.state ?? "unknown"],
    code: health?.code ?? "",
    reason: health?.reason ?? (health?.checkedAt === undefined ? "it was not checked yet" : ""),
    next: health?.next ?? "",
    rights: rights[health?.rights ?? "unknown"],
    imageIds: [...report.imageIds],
    containerIds: [...report.containerIds],
    ...time("since", health?.since),
    ...time("checkedAt", health?.checkedAt),
    ...time("lastOkAt", health?.lastOkAt),
    ...time("nextCheckAt", health?.nextCheckAt),
    ...time("expiresAt", health?.expiresAt ?? report.declaredExpiry),
  });
}

type Times = "since" | "checkedAt" | "lastOkAt" | "nextCheckAt" | "expiresAt";

function time(name: Times, at: Date | undefined): Partial<Record<Times, Timestamp>> {
  return at === undefined ? {} : { [name]: timestampFromDate(at) };
}
