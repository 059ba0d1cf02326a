import { keysOfIdentity } from "./aws-error.ts";
import { type AwsRole, checkPartition, parseRole, pullPolicy, roleSessionName } from "./aws-role.ts";
import { assumeRole, assumeRoleWithWebIdentity, type RoleSession } from "./aws-sts.ts";
import { type AwsKeySource, ecrProvider } from "./ecr.ts";
import { type EcrRegistry, parseEcrRegistry } from "./ecr-host.ts";
import { CredentialError } from "./error.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { identityKey, identityName } from "./identity.ts";
import {
  type AwsKeys,
  fetchOf,
  type Identity,
  type ProviderDependencies,
  type WorkspaceIdentity,
} from "./issuer.ts";
import type { CredentialMap, CredentialProvider, RegistryCredential } from "./provider.ts";

/** The shortest that there is: the session is used for one call. */
const sessionSeconds = 900;
const audience = "sts.amazonaws.com";
const ownKeys = {
  keys: "the AWS keys",
  renew:
    "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; temporary keys need AWS_SESSION_TOKEN and expire.",
};

/**
 * Amazon ECR and ECR Public: tokens got with the keys given, or with those of the role given, and with no others. Account,
 * region and partition come from the registry's name.
 *
 * A role is assumed for the workspace, with its external id: by the keys given, by an identity that the operator allowed
 * to it, or by the workspace's own OpenID Connect token.
 *
 * @throws CredentialError `registry_mismatch`, `bad_value`, `identity_refused`
 */
export function awsProvider(
  credential: RegistryCredential,
  dependencies: ProviderDependencies,
): CredentialProvider {
  const { registry, credentials } = credential;
  const ecr = ecrOf(registry);
  checkRegion(credentials, registry, ecr);
  const roleArn = credentials["AWS_ROLE_ARN"]?.expose();
  if (roleArn === undefined) {
    const source: AwsKeySource = { ...ownKeys, ask: async () => keysIn(credentials) };
    return ecrProvider(
      { registry, ecr, type: "aws", fingerprint: fingerprintOf(credential), source },
      dependencies,
    );
  }
  const role = parseRole(roleArn, "AWS_ROLE_ARN");
  checkPartition(role, registry, ecr);
  const workspace = workspaceOf(dependencies, role);
  const session: RoleSession = {
    role,
    name: roleSessionName(workspace.name),
    durationSeconds: sessionSeconds,
    policy: pullPolicy(ecr),
  };
  const source: AwsKeySource = {
    keys: `the keys of ${role.arn}`,
    renew: "Try again; if it stays so, check that the role still exists.",
    ask: sessionKeys(session, credentials, ecr, workspace, dependencies),
  };
  // The same role is another credential in another workspace: what was got for one must not serve the other.
  const fingerprint = fingerprintOf(credential, workspace.externalId);
  return ecrProvider({ registry, ecr, type: "aws", fingerprint, source }, dependencies);
}

/** @throws CredentialError `registry_mismatch` */
export function ecrOf(registry: string): EcrRegistry {
  const ecr = parseEcrRegistry(registry);
  if (ecr !== undefined) return ecr;
  throw new CredentialError("registry_mismatch", `${registry} is not an Amazon ECR registry`, {
    next: "AWS keys and roles are for ACCOUNT.dkr.ecr.REGION.amazonaws.com and public.ecr.aws only.",
  });
}

/** ECR Public has one region for its tokens, whatever region its user works in. */
function checkRegion(credentials: CredentialMap, registry: string, ecr: EcrRegistry): void {
  const region = credentials["AWS_REGION"]?.expose();
  if (region === undefined || region === ecr.region || ecr.account === undefined) return;
  throw new CredentialError(
    "registry_mismatch",
    `AWS_REGION is not the region of ${registry} (${ecr.region})`,
    { next: `Set AWS_REGION to ${ecr.region}, or leave it out.` },
  );
}

function keysIn(credentials: CredentialMap): AwsKeys {
  const accessKeyId = credentials["AWS_ACCESS_KEY_ID"];
  const secretAccessKey = credentials["AWS_SECRET_ACCESS_KEY"];
  const sessionToken = credentials["AWS_SESSION_TOKEN"];
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw new CredentialError("missing_key", "AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is missing", {
      next: "Give both.",
    });
  }
  return {
    accessKeyId: accessKeyId.expose(),
    secretAccessKey,
    ...(sessionToken === undefined ? {} : { sessionToken }),
  };
}

function workspaceOf(dependencies: ProviderDependencies, role: AwsRole): WorkspaceIdentity {
  if (dependencies.workspace !== undefined) return dependencies.workspace;
  throw new CredentialError("no_credentials", `${role.arn} can be assumed for a workspace only`, {
    next: "Build and run the image through a server, or give the keys of a session of the role here.",
  });
}

/** Asks for a session of the role. What the operator allows is looked at again each time. */
function sessionKeys(
  session: RoleSession,
  credentials: CredentialMap,
  ecr: EcrRegistry,
  workspace: WorkspaceIdentity,
  dependencies: ProviderDependencies,
): () => Promise<AwsKeys> {
  const call = { region: ecr.region, endpoint: ecr.stsEndpoint, send: fetchOf(dependencies) };
  if (credentials["AWS_ACCESS_KEY_ID"] !== undefined) {
    const keys = keysIn(credentials);
    return () => assumeRole(session, { ...call, keys }, ownKeys, workspace.externalId);
  }
  if (credentials[identityKey] !== undefined) {
    const identity = identityName(credentials);
    const askedFor = (): NonNullable<Identity["awsKeys"]> => {
      const { awsKeys } = workspace.identity(identity);
      if (awsKeys !== undefined) return awsKeys;
      throw new CredentialError("bad_value", `identity ${identity} is none of AWS and assumes no role`, {
        next: "Set OCI_NODE_IDENTITY to an identity of type aws, or leave it out.",
      });
    };
    askedFor();
    return async () => {
      const keys = await askedFor()(undefined, ecr);
      return await assumeRole(session, { ...call, keys }, keysOfIdentity(identity), workspace.externalId);
    };
  }
  const { token } = workspace;
  if (token === undefined) {
    throw new CredentialError("no_credentials", `there is nothing to assume ${session.role.arn} with`, {
      next: "Add AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or --identity NAME with one of the operator's that may assume it; or have the operator set [identity] issuer, so that the workspace has tokens of its own.",
    });
  }
  return async () => assumeRoleWithWebIdentity(session, await token(audience), call);
}
