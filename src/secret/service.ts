import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { createProvider } from "../credential/create-provider.ts";
import { detectCredentialType, principalOf } from "../credential/detect.ts";
import { CredentialError } from "../credential/error.ts";
import type { ProviderDependencies, ProvidersOf } from "../credential/issuer.ts";
import { marshalCredentials } from "../credential/marshal.ts";
import type { RegistryCredential } from "../credential/provider.ts";
import { secretNameCandidates } from "../credential/secret-name.ts";
import { credentialsFromWire } from "../credential/wire.ts";
import type { SecretHealth as WireSecretHealth } from "../gen/oci_node/v1/health_service_pb.ts";
import {
  SecretSchema,
  type SecretService,
  type Secret as WireSecret,
} from "../gen/oci_node/v1/secret_service_pb.ts";
import { normalizeRegistry, parseReference } from "../reference/reference.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { SecretError } from "./error.ts";
import { opaqueType } from "./opaque.ts";
import { createOpaque, updateOpaque } from "./opaque-service.ts";
import { assertName, type NewSecret, type SecretMetadata, type Vault } from "./vault.ts";

/** A credential that is to be kept. */
export interface CredentialToTry {
  readonly workspaceId: string;
  readonly credential: RegistryCredential;
  /** Of its registry, with a tag. */
  readonly repository: string | undefined;
  /** The secret whose next version it is to be. */
  readonly secretName?: string | undefined;
}

/** A credential that may be kept: its registry took it, or could not be asked, or nobody wanted to know. */
export interface Tried {
  /** Writes down how the version fares that was kept, and what its owner said. `null`: no end is known any more. */
  kept(
    secret: SecretMetadata,
    facts: { readonly repository?: string | undefined; readonly declaredExpiry?: Date | null | undefined },
  ): Promise<void>;
}

/** What is known of a secret beside its value and its row. */
export interface SecretReport {
  readonly health: WireSecretHealth | undefined;
  readonly repository: string | undefined;
  readonly declaredExpiry: Date | undefined;
  readonly imageIds: readonly string[];
  /** Not ended. */
  readonly containerIds: readonly string[];
}

/** The health room, as far as secrets that are kept and shown need it. */
export interface SecretChecks {
  /** @throws SecretError `refused` when the registry or the issuer says no */
  tryNew(wanted: CredentialToTry, signal: AbortSignal): Promise<Tried>;
  withoutTrial(): Tried;
  /** By id of the secret. @param name one alone */
  reports(workspaceId: string, name?: string): Promise<ReadonlyMap<string, SecretReport>>;
}

export interface SecretServiceDependencies {
  readonly vault: Vault;
  readonly providersOf: ProvidersOf;
  readonly checks: SecretChecks;
}

/** Answers SecretService: values go in and never come back out. */
export function secretService(dependencies: SecretServiceDependencies): ServiceImpl<typeof SecretService> {
  const { vault, providersOf, checks } = dependencies;
  const shown = async (secret: SecretMetadata): Promise<WireSecret> =>
    wireSecret(secret, (await checks.reports(secret.workspaceId, secret.name)).get(secret.id));
  return {
    async createSecret(request, context) {
      if (request.value !== undefined)
        return { secret: await shown(await createOpaque(vault, workspaceOf(context), request)) };
      const registry = normalizeRegistry(request.registry);
      if (request.name !== "") assertName(request.name);
      const repository = placeOf(registry, request.repository);
      const declaredExpiry = endOf(request.expiresAt);
      const workspaceId = workspaceOf(context);
      const { credential, value, principal } = sealable(
        registry,
        request.credentials,
        await providersOf(workspaceId),
      );
      const tried = request.unchecked
        ? checks.withoutTrial()
        : await checks.tryNew({ workspaceId, credential, repository }, context.signal);
      const about = { workspaceId, value, registry, type: credential.type, principal };
      const secret =
        request.name === ""
          ? await createForPrincipal(vault, about)
          : await vault.create({ ...about, name: request.name });
      await tried.kept(secret, { repository, declaredExpiry });
      return { secret: await shown(secret) };
    },
    async getSecret({ name }, context) {
      return { secret: await shown(await vault.get(workspaceOf(context), name)) };
    },
    async listSecrets(_, context) {
      const workspaceId = workspaceOf(context);
      const [secrets, reports] = await Promise.all([vault.list(workspaceId), checks.reports(workspaceId)]);
      // Whoever wants to know the containers asks for one secret: all of them may be very many.
      return {
        secrets: secrets.map((secret) => {
          const report = reports.get(secret.id);
          return wireSecret(secret, report && { ...report, containerIds: [] });
        }),
      };
    },
    async updateSecret({ name, credentials, expiresAt, unchecked, value: opaque }, context) {
      const workspaceId = workspaceOf(context);
      const current = await vault.get(workspaceId, name);
      if (opaque !== undefined || current.type === opaqueType) {
        const { secret, changed } = await updateOpaque(vault, current, {
          credentials,
          expiresAt,
          value: opaque,
        });
        return { secret: await shown(secret), changed };
      }
      const declaredExpiry = endOf(expiresAt);
      const { credential, value, principal } = sealable(
        current.registry,
        credentials,
        await providersOf(workspaceId),
      );
      if (principal !== current.principal) {
        throw new SecretError(
          "bad_value",
          `the secret ${name} belongs to another principal of ${current.registry}`,
          {
            next: "Create a secret of its own for the other account with `oci-node secret create`.",
          },
        );
      }
      const wanted = { workspaceId, credential, repository: undefined, secretName: name };
      const tried = unchecked ? checks.withoutTrial() : await checks.tryNew(wanted, context.signal);
      const { secret, changed } = await vault.update(workspaceId, name, value);
      await tried.kept(secret, { declaredExpiry: declaredExpiry ?? (changed ? null : undefined) });
      return { secret: await shown(secret), changed };
    },
    async deleteSecret({ name, force }, context) {
      await vault.remove(workspaceOf(context), name, { force });
      return {};
    },
  };
}

/** `REPOSITORY:TAG` as references have it: `library/` in front on Docker Hub. Empty: none. */
function placeOf(registry: string, text: string): string | undefined {
  if (text === "") return undefined;
  const reference = parseReference(`${registry}/${text}`);
  if (reference.registry === registry && reference.digest === undefined)
    return `${reference.repository}:${reference.tag ?? "latest"}`;
  throw new SecretError("bad_value", `the repository of ${registry} is not one`, {
    next: "Give its name, and a tag if you like, without a registry or a digest: acme/app, acme/app:1.",
  });
}

function endOf(expiresAt: Timestamp | undefined): Date | undefined {
  if (expiresAt === undefined) return undefined;
  const end = timestampDate(expiresAt);
  if (end.getTime() > Date.now() && end.getUTCFullYear() < 9999) return end;
  throw new SecretError("bad_value", "the credential is said to have ended already, or never to end", {
    next: "Give a day to come, or leave it away.",
  });
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
  const credential = { registry, type, credentials };
  createProvider(credential, dependencies);
  return {
    credential,
    value: marshalCredentials(registry, type, credentials),
    principal: principalOf(registry, type, credentials),
  };
}

function wireSecret(secret: SecretMetadata, report: SecretReport | undefined): WireSecret {
  const { health, repository = "", declaredExpiry, imageIds = [], containerIds = [] } = report ?? {};
  return create(SecretSchema, {
    id: secret.id,
    name: secret.name,
    registry: secret.registry,
    type: secret.type,
    principal: secret.principal,
    version: secret.version,
    createdAt: timestampFromDate(secret.createdAt),
    updatedAt: timestampFromDate(secret.updatedAt),
    imageIds: [...imageIds],
    containerIds: [...containerIds],
    repository,
    ...(declaredExpiry === undefined ? {} : { declaredExpiry: timestampFromDate(declaredExpiry) }),
    ...(health === undefined ? {} : { health }),
  });
}
