import type { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { googleFederatedToken, parseGooglePoolProvider } from "./google-federation.ts";
import { type Impersonator, impersonate, parseServiceAccountEmail } from "./google-impersonation.ts";
import { parseGoogleKey, tokenOfGoogleKey } from "./google-key.ts";
import type { KeepRule } from "./issued.ts";
import { issuedProvider } from "./issued-provider.ts";
import { fetchOf, type ProviderDependencies, type WorkspaceIdentity } from "./issuer.ts";
import { type IssuedToken, type IssuerCall, isToken } from "./issuer-answer.ts";
import { googleKeyFileKey } from "./key.ts";
import type {
  CredentialMap,
  CredentialProvider,
  RegistryAuthorization,
  RegistryCredential,
} from "./provider.ts";

/** Access tokens of Google live an hour. At half of that there is a new one, so that Google may be away for the other half. */
export const googleKeepRule: KeepRule = { lifeMs: 3600_000, marginMs: 30 * 60_000 };
const poolProviderKey = "GCP_WORKLOAD_IDENTITY_PROVIDER";
const userName = "oauth2accesstoken";

/** A token, and who it is of. */
interface Made {
  readonly token: IssuedToken;
  readonly by: Impersonator;
}

/**
 * Artifact Registry and Container Registry: GCP_ACCESS_TOKEN as it is (about an hour, then it is over); or tokens that
 * are made anew, of a service account's key or of the workspace by federation; with GCP_SERVICE_ACCOUNT, of that account.
 *
 * @throws CredentialError `bad_value`
 */
export function googleProvider(
  credential: RegistryCredential,
  dependencies: ProviderDependencies,
): CredentialProvider {
  const { credentials } = credential;
  const make = makerOf(credentials, dependencies.workspace);
  const account = credentials["GCP_SERVICE_ACCOUNT"]?.expose();
  const serviceAccount = account === undefined ? undefined : parseServiceAccountEmail(account);
  if (make === undefined && serviceAccount === undefined) return fixedProvider(credential);
  const federated = credentials[poolProviderKey] !== undefined;
  const whose = federated ? dependencies.workspace?.externalId : undefined;
  const maker = make ?? passOn(accessTokenOf(credentials));
  return googleIssuer({
    credential,
    whose,
    make: maker,
    serviceAccount,
    keepRule: googleKeepRule,
    dependencies,
  });
}

/** What a provider of Google's makes its tokens by. */
export interface GoogleIssuer {
  readonly credential: RegistryCredential;
  /** Part of the fingerprint, where the credential alone does not say whose tokens these are. */
  readonly whose: string | undefined;
  readonly make: (call: IssuerCall) => Promise<Made>;
  /** To go on to. */
  readonly serviceAccount: string | undefined;
  readonly keepRule: KeepRule;
  readonly dependencies: ProviderDependencies;
}

/** The provider that makes tokens, goes on to a service account where one is named, and keeps what it has. */
export function googleIssuer(issuer: GoogleIssuer): CredentialProvider {
  const { credential, dependencies, serviceAccount } = issuer;
  const fingerprint = fingerprintOf(credential, issuer.whose);
  const call = { send: fetchOf(dependencies), now: dependencies.now ?? Date.now };
  const issue = async (): Promise<RegistryAuthorization> => {
    const { token, by } = await issuer.make(call);
    if (serviceAccount === undefined) return authorizationOf(token);
    return authorizationOf(await impersonate(serviceAccount, token.value, by, call));
  };
  const { registry, type } = credential;
  return issuedProvider({ registry, type, fingerprint }, issuer.keepRule, issue, dependencies);
}

function makerOf(
  credentials: CredentialMap,
  workspace: WorkspaceIdentity | undefined,
): GoogleIssuer["make"] | undefined {
  const keyFile = credentials[googleKeyFileKey];
  if (keyFile !== undefined) {
    const key = parseGoogleKey(keyFile);
    const by: Impersonator = { principal: key.email, role: "roles/iam.serviceAccountTokenCreator" };
    return async (call) => ({ token: await tokenOfGoogleKey(key, call), by });
  }
  const name = credentials[poolProviderKey];
  if (name === undefined) return undefined;
  const provider = parseGooglePoolProvider(name.expose());
  return async (call) => {
    const { principal, ...token } = await googleFederatedToken(provider, workspace, call);
    return { token, by: { principal, role: "roles/iam.workloadIdentityUser" } };
  };
}

/** A token that somebody else made is where the way to a service account begins, as long as it lives. */
function passOn(token: Redacted<string>): GoogleIssuer["make"] {
  const by: Impersonator = {
    principal: "the account of GCP_ACCESS_TOKEN",
    role: "roles/iam.serviceAccountTokenCreator",
  };
  return async () => ({ token: { value: token, expiresAt: undefined }, by });
}

function accessTokenOf(credentials: CredentialMap): Redacted<string> {
  const token = credentials["GCP_ACCESS_TOKEN"];
  if (token !== undefined && isToken(token.expose())) return token;
  throw new CredentialError("bad_value", "GCP_ACCESS_TOKEN holds characters that no token has", {
    next: "Set it to what `gcloud auth print-access-token` prints.",
  });
}

function fixedProvider(credential: RegistryCredential): CredentialProvider {
  const password = accessTokenOf(credential.credentials);
  const fixed: RegistryAuthorization = { kind: "basic", username: userName, password };
  return {
    registry: credential.registry,
    type: "gcp",
    fingerprint: fingerprintOf(credential),
    renewable: false,
    advice:
      "GCP_ACCESS_TOKEN is good for an hour and may have expired: give a new one, or a service account's key, which renews itself.",
    authorization: async () => fixed,
  };
}

function authorizationOf({ value, expiresAt }: IssuedToken): RegistryAuthorization {
  const authorization = { kind: "basic", username: userName, password: value } as const;
  return expiresAt === undefined ? authorization : { ...authorization, expiresAt };
}
