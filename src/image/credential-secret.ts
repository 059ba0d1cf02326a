import { principalOf } from "../credential/detect.ts";
import { marshalCredentials } from "../credential/marshal.ts";
import type { RegistryCredential } from "../credential/provider.ts";
import { secretNameCandidates } from "../credential/secret-name.ts";
import type { KeepOutcome, SecretMetadata, Vault } from "../secret/vault.ts";
import { logger } from "../std/log.ts";

const log = logger("image");

/** What became of a build's credentials. */
export interface CredentialSecret {
  readonly secret: SecretMetadata;
  readonly outcome: KeepOutcome;
}

/**
 * Turns the credentials of a build into a workspace secret. A stale laptop cannot undo a rotation: an equal value makes no
 * version, what an earlier version held is not taken again although the registry still takes it, and only what was proved at the
 * registry takes the place of another. A registry that gives a public image without asking proves nothing.
 *
 * The same principal (account, user name, e-mail) on the same registry finds its secret again; another one gets a
 * secret of its own, whose name then carries a suffix.
 */
export async function createCredentialSecretIfNeeded(
  vault: Vault,
  workspaceId: string,
  credential: RegistryCredential,
  proved: boolean,
): Promise<CredentialSecret> {
  const { registry, type, credentials } = credential;
  const value = marshalCredentials(registry, type, credentials);
  const principal = principalOf(registry, type, credentials);
  const names = secretNameCandidates(registry, principal);
  const kept = await vault.keep({ workspaceId, names, value, registry, type, principal, proved });
  if (kept.outcome === "created") {
    log.info("creating credential secret", {
      workspace: workspaceId,
      secret: kept.secret.name,
      registry,
      type,
    });
  }
  return kept;
}
