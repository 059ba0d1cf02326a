import { principalOf } from "../credential/detect.ts";
import { marshalCredentials } from "../credential/marshal.ts";
import type { RegistryCredential } from "../credential/provider.ts";
import { secretNameCandidates } from "../credential/secret-name.ts";
import { createUnderFreeName } from "../secret/free-name.ts";
import type { SecretMetadata, Vault } from "../secret/vault.ts";
import { logger } from "../std/log.ts";

const log = logger("image");

/** What became of a build's credentials. */
export interface CredentialSecret {
  readonly secret: SecretMetadata;
  readonly outcome: "created" | "rotated" | "unchanged" | "unproved";
}

/**
 * Turns the credentials of a build into a workspace secret. Only those that were proved at the registry take the place of
 * others: that, and that an equal value makes no version, is why a stale laptop cannot undo a rotation. A registry that
 * gives a public image without asking proves nothing.
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
  const existing = await vault.findForPrincipal(workspaceId, registry, principal);
  if (existing !== undefined && !proved) return { secret: existing, outcome: "unproved" };
  if (existing !== undefined) {
    const { secret, changed } = await vault.update(workspaceId, existing.name, value);
    return { secret, outcome: changed ? "rotated" : "unchanged" };
  }
  const secret = await createUnderFreeName(secretNameCandidates(registry, principal), (name) => {
    log.info("creating credential secret", { workspace: workspaceId, secret: name, registry, type });
    return vault.create({ workspaceId, name, value, registry, type, principal });
  });
  return { secret, outcome: "created" };
}
