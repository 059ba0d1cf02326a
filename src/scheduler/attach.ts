import { randomUUID } from "node:crypto";
import type { Container } from "../container/container.ts";
import type { ImageStore } from "../image/store.ts";
import { SecretError } from "../secret/error.ts";
import { sealTo } from "../secret/seal.ts";
import type { Vault } from "../secret/vault.ts";
import { logger } from "../std/log.ts";
import type { Worker } from "./worker.ts";

const log = logger("scheduler");
const sealedLifeMs = 5 * 60_000;

/** What a container request says of its image's credentials. */
export interface AttachedCredentials {
  /** Binds the sealed text to one hand-over. */
  readonly requestId: string;
  /** Sealed to the worker's boot key; empty: none. */
  readonly sealed: string;
  readonly expiresAt: Date;
  /** Why there are none although the image's row names a secret. */
  readonly absentReason: string;
}

/**
 * Reads the secret of the container's image from the database, this very moment, and seals it to the chosen worker. No
 * cache stands in between: what was rotated is what is used.
 *
 * A public image has none. A secret that is gone or cannot be decrypted is told (event, log) and the run goes on
 * without: the registry has the last word.
 */
export async function attachCredentials(
  dependencies: { readonly images: ImageStore; readonly vault: Vault },
  container: Container,
  worker: Worker,
): Promise<AttachedCredentials> {
  const requestId = randomUUID();
  const expiresAt = new Date(Date.now() + sealedLifeMs);
  const none = { requestId, sealed: "", expiresAt, absentReason: "" };
  const named = await dependencies.images.getImageCredentialSecret(container.imageId);
  if (named === undefined) return none;
  const about = {
    container: container.id,
    image: container.imageId,
    secret: named.secretName,
    worker: worker.id,
  };
  try {
    const { value, version } = await readByIdOrName(dependencies.vault, container.workspaceId, named);
    const sealed = await sealTo(worker.bootPublicKey, value, {
      requestId,
      containerId: container.id,
      workerId: worker.id,
      bootNonce: worker.bootNonce,
      expiresAt,
    });
    log.info("added OCI credentials to container request", { ...about, version });
    return { requestId, sealed, expiresAt, absentReason: "" };
  } catch (error) {
    if (!(error instanceof SecretError) || (error.code !== "not_found" && error.code !== "undecryptable"))
      throw error;
    const absentReason =
      error.code === "not_found"
        ? `the image's secret ${named.secretName} is gone`
        : `the image's secret ${named.secretName} cannot be decrypted`;
    log.warn("the image's credentials are missing from the container request", {
      ...about,
      reason: absentReason,
    });
    return { ...none, absentReason };
  }
}

/** The secret that the image was built with; when that was removed and made again, the one that has its name now. */
async function readByIdOrName(
  vault: Vault,
  workspaceId: string,
  named: { secretId: string; secretName: string },
) {
  try {
    return await vault.read(workspaceId, named.secretId);
  } catch (error) {
    if (!(error instanceof SecretError) || error.code !== "not_found") throw error;
    return await vault.read(workspaceId, named.secretName);
  }
}
