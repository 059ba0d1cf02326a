import { CredentialError } from "./error.ts";

/** Holds the JSON of a Google service account (its content; a path is read on the caller's side only). */
export const googleKeyFileKey = "GOOGLE_APPLICATION_CREDENTIALS";

/** Every key that a credential may have: the ones of the cloud's own tools, and what people use in the field. */
export const knownKeys = [
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "AWS_REGION",
  "AWS_ROLE_ARN",
  "GCP_ACCESS_TOKEN",
  "GCP_PROJECT_ID",
  googleKeyFileKey,
  "GCP_WORKLOAD_IDENTITY_PROVIDER",
  "GCP_SERVICE_ACCOUNT",
  "AZURE_CLIENT_ID",
  "AZURE_CLIENT_SECRET",
  "AZURE_TENANT_ID",
  "DOCKERHUB_USERNAME",
  "DOCKERHUB_PASSWORD",
  "DOCKERHUB_TOKEN",
  "DOCKER_USERNAME",
  "DOCKER_PASSWORD",
  "GITHUB_USERNAME",
  "GITHUB_TOKEN",
  "NGC_API_KEY",
  "USERNAME",
  "PASSWORD",
  "REGISTRY_USERNAME",
  "REGISTRY_PASSWORD",
  "REGISTRY_TOKEN",
  "REGISTRY_IDENTITY_TOKEN",
  "OCI_NODE_IDENTITY",
] as const;

export type CredentialKey = (typeof knownKeys)[number];

const known: ReadonlySet<string> = new Set(knownKeys);

/** @throws CredentialError `unknown_key`, which lists the known ones */
export function assertKnownKey(key: string): asserts key is CredentialKey {
  if (known.has(key)) return;
  // Somebody may have written KEY=value, or the value alone, where a key was asked for: it stays out of the message.
  const name = /^[A-Z_][A-Z0-9_]{0,63}(?==|$)/.exec(key)?.[0];
  throw new CredentialError("unknown_key", `${name ?? "one of the names given"} is not a credential key`, {
    next: `${name === undefined ? "Give names, not values:" : "Use"} ${knownKeys.join(", ")}.`,
  });
}

export function isKnownKey(key: string): key is CredentialKey {
  return known.has(key);
}
