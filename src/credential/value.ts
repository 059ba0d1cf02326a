import { hasHiddenCharacter } from "../std/printable.ts";
import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { assertKnownKey, type CredentialKey, googleKeyFileKey } from "./key.ts";
import type { CredentialMap } from "./provider.ts";

/** A session token of AWS has about 1 KiB, a service account's JSON 2.4 KiB, an access token of Entra up to 4 KiB. */
const valueLengthMax = 16 * 1024;

/**
 * What says whose a credential is, and is shown to people as its principal. The longest, the ARN of a role, has 2,048
 * characters; with the registry it must fit into one entry of an index (PostgreSQL: 2,704 bytes).
 */
const names: ReadonlySet<CredentialKey> = new Set([
  "USERNAME",
  "REGISTRY_USERNAME",
  "DOCKER_USERNAME",
  "DOCKERHUB_USERNAME",
  "GITHUB_USERNAME",
  "AZURE_CLIENT_ID",
  "AZURE_TENANT_ID",
  "AWS_ROLE_ARN",
  "AWS_REGION",
  "GCP_PROJECT_ID",
  "GCP_SERVICE_ACCOUNT",
  "GCP_WORKLOAD_IDENTITY_PROVIDER",
  "OCI_NODE_IDENTITY",
]);
const nameBytesMax = 2048;

/**
 * A credential map from plain values, each checked. A service account's JSON is rewritten on one line.
 *
 * @throws CredentialError `unknown_key`, `bad_value`
 */
export function credentialMap(values: Readonly<Record<string, string>>): CredentialMap {
  const map: Record<string, Redacted<string>> = {};
  for (const [key, value] of Object.entries(values)) {
    assertKnownKey(key);
    const checked = checkedValue(key, keyOfGoogle(key, value, values));
    if (names.has(key)) assertName(key, checked);
    map[key] = new Redacted(checked);
  }
  return map;
}

const userNameOf: Readonly<Record<string, string>> = {
  PASSWORD: "USERNAME",
  REGISTRY_PASSWORD: "REGISTRY_USERNAME",
  DOCKER_PASSWORD: "DOCKER_USERNAME",
};

/**
 * Google's registries take a service account's key as a password: its JSON beside the user name `_json_key`, in base64
 * beside `_json_key_base64` (Artifact Registry, "Configure authentication to Docker"). Files of either have line breaks.
 */
function keyOfGoogle(key: string, value: string, values: Readonly<Record<string, string>>): string {
  const userName = values[userNameOf[key] ?? ""];
  if (userName === "_json_key") return onOneLine(key, value);
  return userName === "_json_key_base64" ? value.replace(/\s+/g, "") : value;
}

function checkedValue(key: string, value: string): string {
  if (value.length > valueLengthMax) {
    throw new CredentialError("bad_value", `${key} is longer than ${valueLengthMax / 1024} KiB`, {
      next: `Check what ${key} was set to: no credential is that long.`,
    });
  }
  const line = key === googleKeyFileKey ? onOneLine(key, value) : value;
  if (line.trim() === "") {
    throw new CredentialError("missing_key", `${key} is empty`, { next: `Set ${key} to its value.` });
  }
  if (/[\u0000-\u001f\u007f]/.test(line)) {
    throw new CredentialError("bad_value", `${key} holds a line break or another control character`, {
      next: `Set ${key} to the bare value, without a line break at its end.`,
    });
  }
  if (!line.isWellFormed()) {
    throw new CredentialError("bad_value", `${key} is not Unicode text: half of a surrogate pair is in it`, {
      next: `Set ${key} to its value as UTF-8.`,
    });
  }
  return line;
}

function assertName(key: string, value: string): void {
  if (Buffer.byteLength(value) > nameBytesMax) {
    throw new CredentialError("bad_value", `${key} is longer than ${nameBytesMax} bytes`, {
      next: `Check what ${key} was set to: no name is that long.`,
    });
  }
  if (hasHiddenCharacter(value)) {
    throw new CredentialError(
      "bad_value",
      `${key} holds a character that does not show, such as one that turns text around`,
      {
        next: `Type the value of ${key} anew: such characters come with texts that were copied.`,
      },
    );
  }
}

/** The parser's own message would quote the text, which is a private key: it is left out. */
function onOneLine(key: string, value: string): string {
  try {
    const parsed: unknown = JSON.parse(value);
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed))
      return JSON.stringify(parsed);
  } catch {
    // Fall through to the one error for everything that is no JSON object.
  }
  const path =
    key === googleKeyFileKey ? `, or name it where the command runs: ${key}=/path/to/key.json` : "";
  throw new CredentialError("bad_value", `${key} is not the JSON of a service account`, {
    next: `Pass the key file's content${path}.`,
  });
}
