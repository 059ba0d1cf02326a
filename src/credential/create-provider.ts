import { parseRegistry } from "../reference/reference.ts";
import type { Redacted } from "../std/redacted.ts";
import { awsProvider } from "./aws-provider.ts";
import { azureProvider, isExchanged } from "./azure.ts";
import { detectCredentialType } from "./detect.ts";
import { type Environment, parseCredentialsFromEnv } from "./environment.ts";
import { CredentialError } from "./error.ts";
import { chooseFamily, keysOf } from "./family.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { googleProvider } from "./google.ts";
import { identityProvider } from "./identity.ts";
import type { ProviderDependencies } from "./issuer.ts";
import type { CredentialKey } from "./key.ts";
import {
  anonymousProvider,
  type CredentialMap,
  type CredentialProvider,
  type RegistryAuthorization,
  type RegistryCredential,
} from "./provider.ts";

/**
 * The provider for an image from variables: the named ones and no others. No keys at all is a public image.
 *
 * @throws CredentialError, ImageReferenceError
 */
export function createProviderFromEnv(
  imageReference: string,
  keys: readonly string[],
  env: Environment,
  dependencies: ProviderDependencies = {},
): CredentialProvider {
  const registry = parseRegistry(imageReference);
  const credentials = parseCredentialsFromEnv(env, keys);
  return createProvider(
    { registry, type: detectCredentialType(registry, credentials), credentials },
    dependencies,
  );
}

/**
 * The provider of a credential. Nothing is asked of anybody yet, but whatever can be wrong in the keys is found here.
 *
 * @throws CredentialError `registry_mismatch`, `incomplete_pair`, `bad_value`, `identity_refused`
 */
export function createProvider(
  credential: RegistryCredential,
  dependencies: ProviderDependencies = {},
): CredentialProvider {
  const { registry } = credential;
  const family = chooseFamily(registry, credential.credentials);
  const type = family?.type ?? "public";
  if (type !== credential.type) {
    throw new CredentialError(
      "bad_value",
      `the credential for ${registry} says ${credential.type}, but its keys are ${type}`,
      {
        next: `Store it with type ${type}.`,
      },
    );
  }
  if (family === undefined) return anonymousProvider(registry);
  const needed = { registry, type, credentials: keysOf(family, credential.credentials) };
  if (type === "aws") return awsProvider(needed, dependencies);
  if (type === "gcp") return googleProvider(needed, dependencies);
  if (type === "azure" && isExchanged(needed.credentials)) return azureProvider(needed, dependencies);
  if (type === "identity") return identityProvider(needed, dependencies);
  if (type === "token") return fixedProvider(needed, tokenOf(needed.credentials));
  const names = family.needs.flat();
  return fixedProvider(
    needed,
    names.includes("NGC_API_KEY") ? ngc(needed.credentials) : pair(needed.credentials, names),
  );
}

function fixedProvider(
  credential: RegistryCredential,
  authorization: RegistryAuthorization,
): CredentialProvider {
  return {
    registry: credential.registry,
    type: credential.type,
    fingerprint: fingerprintOf(credential),
    renewable: false,
    authorization: async () => authorization,
  };
}

/** NVIDIA's catalogue knows one user name, and every key is its password (NGC User Guide). */
function ngc(credentials: CredentialMap): RegistryAuthorization {
  return { kind: "basic", username: "$oauthtoken", password: valueUnder(credentials, ["NGC_API_KEY"]) };
}

/** A user name and a password; for Azure a service principal's id and secret, which its registries take as such. */
function pair(credentials: CredentialMap, names: readonly CredentialKey[]): RegistryAuthorization {
  const [user, ...passwords] = names;
  const username = valueUnder(credentials, user === undefined ? [] : [user]).expose();
  if (username.includes(":")) {
    throw new CredentialError("bad_value", `${user} holds a colon, which a user name must not (RFC 7617)`, {
      next: `Set ${user} to the user name alone.`,
    });
  }
  return { kind: "basic", username, password: valueUnder(credentials, passwords) };
}

function tokenOf(credentials: CredentialMap): RegistryAuthorization {
  const token = valueUnder(credentials, ["REGISTRY_TOKEN", "REGISTRY_IDENTITY_TOKEN"]);
  if (!/^[\x21-\x7e]+$/.test(token.expose())) {
    throw new CredentialError("bad_value", "the token holds characters that no token has", {
      next: "Pass the bare token, without `Bearer` in front.",
    });
  }
  return credentials["REGISTRY_TOKEN"] === undefined ? { kind: "refresh", token } : { kind: "bearer", token };
}

function valueUnder(credentials: CredentialMap, keys: readonly CredentialKey[]): Redacted<string> {
  for (const key of keys) {
    const value = credentials[key];
    if (value !== undefined) return value;
  }
  throw new CredentialError("missing_key", `${keys.join(" or ")} is missing`, {
    next: `Give ${keys.join(" or ")}.`,
  });
}
