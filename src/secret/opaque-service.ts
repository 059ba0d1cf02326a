import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { CreateSecretRequest } from "../gen/oci_node/v1/secret_service_pb.ts";
import { SecretError } from "./error.ts";
import { opaqueType, opaqueValue, wrongKind } from "./opaque.ts";
import type { SecretMetadata, Vault } from "./vault.ts";

/**
 * Keeps a value for containers under its name.
 * @throws SecretError `exists`, `bad_name`, `bad_value`, `too_large`
 */
export async function createOpaque(
  vault: Vault,
  workspaceId: string,
  { name, registry, repository, credentials, expiresAt, value }: CreateSecretRequest,
): Promise<SecretMetadata> {
  if (registry !== "" || repository !== "" || Object.keys(credentials).length > 0 || expiresAt !== undefined)
    throw notBoth();
  return await vault.create({
    workspaceId,
    name,
    value: opaqueValue(value ?? new Uint8Array()),
    type: opaqueType,
    principal: "",
  });
}

/**
 * Gives such a secret another value.
 * @throws SecretError `bad_value` also for a secret of another kind, or no value
 */
export async function updateOpaque(
  vault: Vault,
  { workspaceId, name, type, registry }: SecretMetadata,
  change: {
    readonly credentials: Readonly<Record<string, string>>;
    readonly expiresAt: Timestamp | undefined;
    readonly value: Uint8Array | undefined;
  },
): Promise<{ secret: SecretMetadata; changed: boolean }> {
  if (type !== opaqueType) throw wrongKind(name, type, registry);
  if (Object.keys(change.credentials).length > 0 || change.expiresAt !== undefined) throw notBoth();
  return await vault.update(workspaceId, name, opaqueValue(change.value ?? new Uint8Array()));
}

function notBoth(): SecretError {
  return new SecretError("bad_value", "a value for containers has no registry, no credentials and no end", {
    next: "Give the value alone, or a registry's credentials without it.",
  });
}
