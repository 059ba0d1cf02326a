import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { authorizationToWire } from "../credential/wire.ts";
import type { CredentialService } from "../gen/oci_node/v1/credential_service_pb.ts";
import { normalizeRegistry, parseReference } from "../reference/reference.ts";
import { callerOf, workspaceOf } from "../rpc/authentication.ts";
import { type ReleaseDependencies, releaseCredential } from "./release-credential.ts";

type Handlers = Pick<ServiceImpl<typeof CredentialService>, "getRegistryCredential">;

/** Answers the part of CredentialService that gives credentials out, for the workspace of the caller. */
export function credentialService(dependencies: ReleaseDependencies): Handlers {
  return {
    async getRegistryCredential({ image, secretName }, context) {
      const asked = image.includes("/") ? parseReference(image) : { registry: normalizeRegistry(image) };
      const { registry } = asked;
      const released = await releaseCredential(
        dependencies,
        {
          workspaceId: workspaceOf(context),
          tokenId: callerOf(context).tokenId,
          registry,
          repository: "repository" in asked ? asked.repository : undefined,
          secretName: secretName === "" ? undefined : secretName,
        },
        context.signal,
      );
      const { authorization, scope, repository } = released;
      const { expiresAt } = authorization;
      return {
        registry,
        ...authorizationToWire(authorization),
        ...(expiresAt === undefined ? {} : { validUntil: timestampFromDate(expiresAt) }),
        scope,
        secretName: released.secretName ?? "",
        repository: repository ?? "",
      };
    },
  };
}
