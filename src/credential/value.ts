import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { assertKnownKey, googleKeyFileKey } from "./key.ts";
import type { CredentialMap } from "./provider.ts";

/** A session token of AWS has about 1 KiB, a service account's JSON 2.4 KiB, an access token of Entra up to 4 KiB. */
const valueLengthMax = 16 * 1024;

/**
 * A credential map from plain values, each checked. A service account's JSON is rewritten on one line.
 *
 * @throws CredentialError `unknown_key`, `bad_value`
 */
export function credentialMap(values: Readonly<Record<string, string>>): CredentialMap {
  const map: Record<string, Redacted<string>> = {};
  for (const [key, value] of Object.entries(values)) {
    assertKnownKey(key);
    map[key] = new Redacted(checkedValue(key, keyOfGoogle(key, value, values)));
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
  return line;
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
