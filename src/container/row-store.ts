import type { containerEvents, containers } from "../db/schema.ts";
import type { Container, ContainerEvent, ContainerSpec, ImageTransfer, Phases } from "./container.ts";
import { type ImageCredentialJson, imageCredentialFromJson } from "./image-credential.ts";
import { defaultOptions, type PublishedPort } from "./options.ts";
import { parseContainerState } from "./state.ts";

export type ContainerRow = typeof containers.$inferSelect;

/** A container as its row holds it. */
export function toContainer(row: ContainerRow): Container {
  const spec = row.spec as Omit<ContainerSpec, "options"> & Partial<Pick<ContainerSpec, "options">>;
  return {
    id: row.id,
    workspaceId: row.workspaceId,
    imageId: row.imageId,
    reference: row.reference,
    command: spec.command,
    env: spec.env,
    network: spec.network,
    eager: spec.eager,
    // Rows of earlier versions have less.
    options: { ...defaultOptions, ...spec.options },
    handler: spec.handler,
    serving: spec.serving,
    name: row.name ?? undefined,
    deploymentId: row.deploymentId ?? undefined,
    cpuMillis: row.cpuMillis,
    memoryBytes: row.memoryBytes,
    state: parseContainerState(row.state),
    attempt: row.attempt,
    workerId: row.workerId ?? undefined,
    exitCode: row.exitCode ?? undefined,
    signal: row.signal ?? undefined,
    oomKilled: row.oomKilled,
    reason: row.reason ?? undefined,
    phases: parsePhases(row.phases),
    transfer: (row.transfer as ImageTransfer | null) ?? undefined,
    imageCredential: imageCredentialFromJson(row.imageCredential as ImageCredentialJson | null),
    address: row.address ?? undefined,
    ports: row.ports as PublishedPort[],
    restarts: row.restarts,
    readyAt: row.readyAt ?? undefined,
    drainingAt: row.drainingAt ?? undefined,
    claimedBy: row.claimedBy ?? undefined,
    leaseUntil: row.leaseUntil ?? undefined,
    createdAt: row.createdAt,
    startedAt: row.startedAt ?? undefined,
    finishedAt: row.finishedAt ?? undefined,
    updatedAt: row.updatedAt,
  };
}

/** An event as its row holds it. */
export function toContainerEvent(row: typeof containerEvents.$inferSelect): ContainerEvent {
  const { id, containerId, at, kind, message } = row;
  return { id, containerId, at, kind, message, fields: row.fields as Record<string, string> };
}

function parsePhases(stored: unknown): Phases {
  return Object.fromEntries(
    Object.entries(stored as Record<string, string>).map(([name, at]) => [name, new Date(at)]),
  );
}
