import type { AuditEvent } from "../audit/audit.ts";
import type { Container } from "../container/container.ts";
import { type ReadSecrets, readContainerSecrets } from "../secret/container-secrets.ts";
import { sealTo } from "../secret/seal.ts";
import type { Vault } from "../secret/vault.ts";
import { logger } from "../std/log.ts";
import type { AttachedCredentials } from "./attach.ts";
import type { Worker } from "./worker.ts";

const log = logger("scheduler");

export interface AttachSecretsDependencies {
  readonly vault: Pick<Vault, "readNamed">;
  /** Writes down which secret went to which worker; nobody waits for it. */
  readonly noteUse: (event: AuditEvent) => void;
}

/**
 * Reads the secrets that a container is given, as they are now, and seals them to the worker that gets it, for this hand-over.
 * What comes back is called once the request is known. Empty: it is given none.
 *
 * @returns throws SecretError for one that is missing, no value for containers, or cannot be opened
 */
export function attachSecrets(
  { vault, noteUse }: AttachSecretsDependencies,
  container: Container,
  worker: Worker,
): (hanging: Pick<AttachedCredentials, "requestId" | "expiresAt">) => Promise<string> {
  const { secrets: given } = container.options;
  if (given.length === 0) return async () => "";
  const reading = readContainerSecrets(vault, container.workspaceId, given);
  reading.catch(() => undefined);
  return async ({ requestId, expiresAt }) => {
    const { values, secrets } = await reading;
    const context = {
      requestId,
      containerId: container.id,
      workerId: worker.id,
      bootNonce: worker.bootNonce,
      expiresAt,
    };
    const sealed = await sealTo(worker.bootPublicKey, values, context, "container secrets");
    const names = secrets.map(({ name }) => name);
    log.info("added secrets to container request", {
      container: container.id,
      worker: worker.id,
      secrets: names,
    });
    for (const secret of secrets) noteUse(useOf(container, worker, secret));
    return sealed;
  };
}

function useOf(container: Container, worker: Worker, secret: ReadSecrets["secrets"][number]): AuditEvent {
  return {
    actor: { kind: "node", id: "scheduler", name: "scheduler" },
    workspaceId: container.workspaceId,
    action: "secret.use",
    target: { kind: "secret", id: secret.id, name: secret.name },
    outcome: "ok",
    fields: { container: container.id, worker: worker.id, version: String(secret.version) },
  };
}
