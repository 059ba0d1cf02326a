import { CredentialError } from "../credential/error.ts";
import { opaqueType, wrongKind } from "../secret/opaque.ts";
import type { SecretMetadata, Vault } from "../secret/vault.ts";
import type { ImageStore } from "./store.ts";

/** For what a secret of the workspace is wanted. */
export interface SecretWanted {
  readonly workspaceId: string;
  readonly registry: string;
  /** Undefined: whatever is to be pulled. */
  readonly repository: string | undefined;
  /** Undefined: the one that there is. */
  readonly secretName: string | undefined;
}

export interface ChosenSecret {
  readonly secret: SecretMetadata;
  /** It was chosen for the repository; for another one it might be another. */
  readonly ofRepository: boolean;
}

/**
 * The secret for a registry: the one that is named, or the only one, or of several the one that all images of the
 * repository were built with. `undefined`: the workspace has none.
 *
 * @throws CredentialError `registry_mismatch`, `bad_value` when several are left; SecretError `not_found`
 */
export async function chooseSecret(
  { vault, images }: { readonly vault: Vault; readonly images: Pick<ImageStore, "list"> },
  { workspaceId, registry, repository, secretName }: SecretWanted,
): Promise<ChosenSecret | undefined> {
  if (secretName !== undefined) {
    const secret = await vault.get(workspaceId, secretName);
    if (secret.type === opaqueType) throw wrongKind(secretName, secret.type, "");
    if (secret.registry === registry) return { secret, ofRepository: false };
    throw secretMismatch(secretName, secret.registry, registry);
  }
  const fitting = (await vault.list(workspaceId)).filter((secret) => secret.registry === registry);
  const [first, ...others] = fitting;
  if (first === undefined) return undefined;
  if (others.length === 0) return { secret: first, ofRepository: false };
  const built = (await images.list(workspaceId)).filter(
    (image) => image.registry === registry && image.repository === repository,
  );
  const used = new Set(built.map((image) => image.credentialSecretId));
  const [own] = fitting.filter(({ id }) => used.has(id));
  if (own !== undefined && used.size === 1) return { secret: own, ofRepository: true };
  const shown = fitting.slice(0, 10).map(({ name, principal }) => `${name} (${principal})`);
  throw new CredentialError(
    "bad_value",
    `the workspace has several secrets for ${registry}: ${shown.join(", ")}`,
    { next: "Choose one with --secret NAME, or for Docker with the variable OCI_NODE_SECRET=NAME." },
  );
}

export function secretMismatch(secretName: string, actual: string, asked: string): CredentialError {
  return new CredentialError("registry_mismatch", `the secret ${secretName} is for ${actual}, not ${asked}`, {
    next: "Choose a secret of the registry: see `oci-node secret ls`.",
  });
}
