import type { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import type { WorkspaceIdentity } from "./issuer.ts";

/**
 * The token by which a workspace shows a cloud who it is.
 *
 * @param instead what else the user can give, for the error
 * @throws CredentialError `provider_failed` where no control plane stands behind, or the operator has set no issuer
 */
export async function subjectToken(
  workspace: WorkspaceIdentity | undefined,
  audience: string,
  instead: string,
): Promise<Redacted<string>> {
  if (workspace?.token !== undefined) return workspace.token(audience);
  const message =
    workspace === undefined
      ? "federation needs a workspace, whose token a cloud believes; this command runs without a node"
      : `workspace ${workspace.name} has no tokens of its own: the operator has set no issuer`;
  const way =
    workspace === undefined ? "Pull through a node" : "Have [identity] issuer set in its configuration";
  throw new CredentialError("provider_failed", message, { next: `${way}, or ${instead}.` });
}
