import type { ServiceImpl } from "@connectrpc/connect";
import type { CredentialService } from "../gen/oci_node/v1/credential_service_pb.ts";
import { workspaceOf } from "../rpc/authentication.ts";

/** Who a workspace is to clouds, and which of the operator's identities it may use. */
export interface WorkspaceDescription {
  readonly workspace: string;
  readonly externalId: string;
  /** Undefined: workspaces have no tokens. */
  readonly issuer: string | undefined;
  readonly subject: string;
  readonly identities: readonly { readonly name: string; readonly type: string; readonly default: boolean }[];
}

export type DescribeIdentity = (workspaceId: string) => Promise<WorkspaceDescription>;

/** Answers CredentialService's GetWorkspaceIdentity for the workspace of the caller. */
export function getWorkspaceIdentity(
  describe: DescribeIdentity,
): ServiceImpl<typeof CredentialService>["getWorkspaceIdentity"] {
  return async (_, context) => {
    const { issuer = "", identities, ...others } = await describe(workspaceOf(context));
    return { ...others, issuer, identities: [...identities] };
  };
}
