import { z } from "zod";
import { ImageReferenceError } from "../reference/error.ts";
import { normalizeRegistry } from "../reference/reference.ts";
import { Redacted } from "../std/redacted.ts";
import { detectCredentialType } from "./detect.ts";
import { CredentialError } from "./error.ts";
import { chooseFamily, keysOf } from "./family.ts";
import {
  type CredentialMap,
  type CredentialType,
  credentialTypes,
  type RegistryCredential,
} from "./provider.ts";
import { credentialMap } from "./value.ts";

const textLengthMax = 64 * 1024;
const credentialSchema = z.strictObject({
  registry: z.string().max(300),
  type: z.enum(credentialTypes),
  credentials: z.record(z.string(), z.string()),
});

/**
 * The value of a workspace secret: `{"registry","type","credentials":{}}`. Only the keys that the registry needs go
 * in, in a fixed order, so that equal credentials are equal texts.
 *
 * @throws CredentialError when the type is not what the keys are
 */
export function marshalCredentials(
  registry: string,
  type: CredentialType,
  credentials: CredentialMap,
): Redacted<string> {
  const family = chooseFamily(registry, credentials);
  assertType(registry, type, family?.type ?? "public");
  const needed = family === undefined ? {} : keysOf(family, credentials);
  const values = Object.fromEntries(
    Object.keys(needed)
      .sort()
      .map((key) => [key, needed[key]?.expose() ?? ""]),
  );
  return new Redacted(JSON.stringify({ registry, type, credentials: values }));
}

/**
 * Reads what {@link marshalCredentials} wrote, or what a user stored in its form, and checks it as anew.
 *
 * @throws CredentialError `bad_value` and those of {@link detectCredentialType}; never with a part of the text
 */
export function unmarshalCredentials(text: Redacted<string>): RegistryCredential {
  const parsed = credentialSchema.safeParse(parseJson(text.expose()));
  if (!parsed.success) throw malformed();
  const registry = canonicalRegistry(parsed.data.registry);
  const credentials = credentialMap(parsed.data.credentials);
  assertType(registry, parsed.data.type, detectCredentialType(registry, credentials));
  return { registry, type: parsed.data.type, credentials };
}

function parseJson(text: string): unknown {
  if (text.length > textLengthMax) throw malformed();
  try {
    return JSON.parse(text);
  } catch {
    throw malformed();
  }
}

function canonicalRegistry(text: string): string {
  try {
    return normalizeRegistry(text);
  } catch (error) {
    if (error instanceof ImageReferenceError) throw malformed();
    throw error;
  }
}

function assertType(registry: string, type: CredentialType, actual: CredentialType): void {
  if (type === actual) return;
  throw new CredentialError(
    "bad_value",
    `the credential for ${registry} says ${type}, but its keys are ${actual}`,
    {
      next: `Store it with type ${actual}.`,
    },
  );
}

function malformed(): CredentialError {
  return new CredentialError("bad_value", "the value is not a registry credential", {
    next: 'Store {"registry":"HOST","type":"basic","credentials":{"USERNAME":"…","PASSWORD":"…"}}, or use --creds.',
  });
}
