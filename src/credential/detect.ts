import { hasHiddenCharacter } from "../std/printable.ts";
import { parseEcrHost } from "./ecr-host.ts";
import { chooseFamily } from "./family.ts";
import { identityName } from "./identity.ts";
import { googleKeyFileKey } from "./key.ts";
import type { CredentialMap, CredentialType } from "./provider.ts";

/**
 * What kind of credential a registry gets from a map: by the keys, checked against the host. No keys: `public`.
 *
 * @throws CredentialError `incomplete_pair`, `registry_mismatch`, `missing_key`
 */
export function detectCredentialType(registry: string, credentials: CredentialMap): CredentialType {
  return chooseFamily(registry, credentials)?.type ?? "public";
}

const userNameKeys = [
  "DOCKERHUB_USERNAME",
  "GITHUB_USERNAME",
  "USERNAME",
  "REGISTRY_USERNAME",
  "DOCKER_USERNAME",
  "AZURE_CLIENT_ID",
] as const;

/**
 * Whose credential it is, so that two accounts on one registry stay apart and a rotated key does not: the AWS account
 * of the host or the role, the user name, a service account's e-mail, an identity's name; a bare token says nothing: all of them are `default`.
 */
export function principalOf(registry: string, type: CredentialType, credentials: CredentialMap): string {
  if (type === "public") return "anonymous";
  if (type === "aws") {
    return credentials["AWS_ROLE_ARN"]?.expose() ?? parseEcrHost(registry)?.account ?? "default";
  }
  if (type === "gcp") return googleAccount(credentials) ?? "default";
  if (type === "token") return "default";
  if (type === "identity") return `identity:${identityName(credentials)}`;
  const family = chooseFamily(registry, credentials);
  const key = userNameKeys.find((name) => family?.needs.some((oneOf) => oneOf.includes(name)));
  const name = key === undefined ? undefined : credentials[key]?.expose();
  return keyAccount(name, credentials) ?? name ?? "default";
}

/** Of the user names by which Google takes a service account's key: the account that the key is of. */
function keyAccount(userName: string | undefined, credentials: CredentialMap): string | undefined {
  if (userName !== "_json_key" && userName !== "_json_key_base64") return undefined;
  const { PASSWORD, REGISTRY_PASSWORD, DOCKER_PASSWORD } = credentials;
  const key = (PASSWORD ?? REGISTRY_PASSWORD ?? DOCKER_PASSWORD)?.expose() ?? "";
  return emailIn(userName === "_json_key" ? key : Buffer.from(key, "base64").toString("utf8"));
}

/** The account that is acted as, else the key's own, else the provider by which Google believes the workspace. */
function googleAccount(credentials: CredentialMap): string | undefined {
  return (
    credentials["GCP_SERVICE_ACCOUNT"]?.expose() ??
    emailIn(credentials[googleKeyFileKey]?.expose()) ??
    credentials["GCP_WORKLOAD_IDENTITY_PROVIDER"]?.expose()
  );
}

function emailIn(json: string | undefined): string | undefined {
  if (json === undefined) return undefined;
  try {
    const email: unknown = (JSON.parse(json) as { client_email?: unknown }).client_email;
    const isName = typeof email === "string" && email.length <= 255 && !hasHiddenCharacter(email);
    return isName ? email : undefined;
  } catch {
    return undefined;
  }
}
