import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { createProvider } from "../credential/create-provider.ts";
import { detectCredentialType, principalOf } from "../credential/detect.ts";
import { CredentialError } from "../credential/error.ts";
import type { ProviderDependencies, ProvidersOf } from "../credential/issuer.ts";
import { marshalCredentials } from "../credential/marshal.ts";
import { secretNameCandidates } from "../credential/secret-name.ts";
import { credentialsFromWire } from "../credential/wire.ts";
import {
  SecretSchema,
  type SecretService,
  type Secret as WireSecret,
} from "../gen/oci_node/v1/secret_service_pb.ts";
import { normalizeRegistry } from "../reference/reference.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { SecretError } from "./error.ts";
import type { NewSecret, SecretMetadata, Vault } from "./vault.ts";

/** Answers SecretService: values go in and never come back out. */
export function secretService(vault: Vault, providersOf: ProvidersOf): ServiceImpl<typeof SecretService> {
  return {
    async createSecret(request, context) {
      const registry = normalizeRegistry(request.registry);
      const workspaceId = workspaceOf(context);
      const { value, type, principal } = sealable(
        registry,
        request.credentials,
        await providersOf(workspaceId),
      );
      const about = { workspaceId, value, registry, type, principal };
      const secret =
        request.name === ""
          ? await createForPrincipal(vault, about)
          : await vault.create({ ...about, name: request.name });
      return { secret: await wireSecret(vault, secret) };
    },
    async getSecret({ name }, context) {
      return { secret: await wireSecret(vault, await vault.get(workspaceOf(context), name)) };
    },
    async listSecrets(_, context) {
      const secrets = await vault.list(workspaceOf(context));
      return { secrets: await Promise.all(secrets.map((secret) => wireSecret(vault, secret))) };
    },
    async updateSecret({ name, credentials }, context) {
      const workspaceId = workspaceOf(context);
      const current = await vault.get(workspaceId, name);
      const { value, principal } = sealable(current.registry, credentials, await providersOf(workspaceId));
      if (principal !== current.principal) {
        throw new SecretError(
          "bad_value",
          `the secret ${name} belongs to another principal of ${current.registry}`,
          {
            next: "Create a secret of its own for the other account with `oci-node secret create`.",
          },
        );
      }
      const { secret, changed } = await vault.update(workspaceId, name, value);
      return { secret: await wireSecret(vault, secret), changed };
    },
    async deleteSecret({ name, force }, context) {
      await vault.remove(workspaceOf(context), name, { force });
      return {};
    },
  };
}

/** Without a name there is one secret of a principal at a registry: a second would leave open which of them is rotated. */
async function createForPrincipal(
  vault: Vault,
  about: Required<Omit<NewSecret, "name">> & { registry: string; principal: string },
): Promise<SecretMetadata> {
  const names = secretNameCandidates(about.registry, about.principal);
  const { secret, outcome } = await vault.keep({ ...about, names, proved: false });
  if (outcome === "created") return secret;
  const whose = about.principal === "default" ? "a token" : `the credential of ${about.principal}`;
  throw new SecretError(
    "exists",
    `the workspace keeps ${whose} for ${about.registry} already, as ${secret.name}`,
    {
      next: `Rotate it with \`oci-node secret update ${secret.name}\`, or keep another one with --name NAME.`,
    },
  );
}

/** Whatever can be wrong with a credential before it is used is found here, an identity that is not allowed included. */
function sealable(
  registry: string,
  values: Readonly<Record<string, string>>,
  dependencies: ProviderDependencies,
) {
  const credentials = credentialsFromWire(values);
  if (Object.keys(credentials).length === 0) {
    throw new CredentialError("no_credentials", `no credentials were given for ${registry}`, {
      next: "Give them with --creds KEY,KEY, --creds-file FILE, or as KEY=value lines on standard input.",
    });
  }
  const type = detectCredentialType(registry, credentials);
  createProvider({ registry, type, credentials }, dependencies);
  return {
    value: marshalCredentials(registry, type, credentials),
    type,
    principal: principalOf(registry, type, credentials),
  };
}

async function wireSecret(vault: Vault, secret: SecretMetadata): Promise<WireSecret> {
  return create(SecretSchema, {
    id: secret.id,
    name: secret.name,
    registry: secret.registry,
    type: secret.type,
    principal: secret.principal,
    version: secret.version,
    createdAt: timestampFromDate(secret.createdAt),
    updatedAt: timestampFromDate(secret.updatedAt),
    imageIds: [...(await vault.imagesUsing(secret))],
  });
}
