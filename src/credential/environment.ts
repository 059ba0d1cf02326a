import { readFile, stat } from "node:fs/promises";
import { CredentialError } from "./error.ts";
import { assertKnownKey, googleKeyFileKey, isKnownKey } from "./key.ts";
import type { CredentialMap } from "./provider.ts";
import { credentialMap } from "./value.ts";

/** Variables by name, as `process.env` has them. Always an argument: this room reads no environment of its own. */
export type Environment = Readonly<Record<string, string | undefined>>;

const fileSizeBytesMax = 256 * 1024;

/**
 * The credential in a set of variables. With `keys`, each of them must be known and set; without, whatever known keys
 * are set are taken and everything else is passed over.
 *
 * @throws CredentialError `unknown_key`, `missing_key`, `bad_value`
 */
export function parseCredentialsFromEnv(env: Environment, keys?: readonly string[]): CredentialMap {
  const values: Record<string, string> = {};
  for (const key of keys ?? Object.keys(env).filter(isKnownKey)) {
    assertKnownKey(key);
    const value = env[key];
    if (value !== undefined && value !== "") {
      values[key] = value;
    } else if (keys !== undefined) {
      throw new CredentialError("missing_key", `${key} is not set${value === "" ? " to anything" : ""}`, {
        next: `Set ${key}, or leave it out of the credential's keys.`,
      });
    }
  }
  return credentialMap(values);
}

/**
 * {@link parseCredentialsFromEnv} on the caller's own machine: there, and only there, GOOGLE_APPLICATION_CREDENTIALS
 * may be a path, whose file is read.
 */
export async function readCallerCredentials(
  env: Environment,
  keys: readonly string[],
): Promise<CredentialMap> {
  const value = env[googleKeyFileKey];
  if (
    !keys.includes(googleKeyFileKey) ||
    value === undefined ||
    value === "" ||
    value.trimStart().startsWith("{")
  ) {
    return parseCredentialsFromEnv(env, keys);
  }
  return parseCredentialsFromEnv({ ...env, [googleKeyFileKey]: await readKeyFile(value) }, keys);
}

async function readKeyFile(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size <= fileSizeBytesMax) return await readFile(path, "utf8");
  } catch (cause) {
    throw new CredentialError("bad_value", `${googleKeyFileKey} names a file that cannot be read`, {
      cause,
      next: `Set ${googleKeyFileKey} to the path of a service account's JSON key.`,
    });
  }
  throw new CredentialError("bad_value", `${googleKeyFileKey} names a file that is too large for a key`, {
    next: `Set ${googleKeyFileKey} to the path of a service account's JSON key.`,
  });
}

/**
 * The credential in a file of `KEY=value` lines: blank lines and lines that begin with `#` are passed over, `export `
 * in front and one pair of quotes around the value are taken off, nothing is expanded.
 *
 * @throws CredentialError `unknown_key`, `bad_value`, `missing_key`; lines are named by number, never quoted
 */
export function parseCredentialsFile(text: string): CredentialMap {
  if (text.length > fileSizeBytesMax) {
    throw new CredentialError("bad_value", "the credentials file is too large", {
      next: "Pass a file of KEY=value lines.",
    });
  }
  const values: Record<string, string> = {};
  for (const [index, raw] of text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    const [key, value] = keyAndValue(line, index + 1);
    if (Object.hasOwn(values, key)) {
      throw new CredentialError("bad_value", `line ${index + 1} sets ${key} again`, {
        next: "Keep one of the lines.",
      });
    }
    values[key] = value;
  }
  if (Object.keys(values).length === 0) {
    throw new CredentialError("no_credentials", "what was given as credentials is empty", {
      next: "Write one KEY=value per line, such as USERNAME=… and PASSWORD=….",
    });
  }
  return credentialMap(values);
}

function keyAndValue(line: string, lineNumber: number): readonly [key: string, value: string] {
  const match = /^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$/.exec(line);
  const key = match?.[1];
  if (key === undefined) {
    throw new CredentialError("bad_value", `line ${lineNumber} of the credentials file is not KEY=value`, {
      next: "Write one KEY=value per line; a service account's JSON must stand on one line.",
    });
  }
  assertKnownKey(key);
  const value = match?.[2] ?? "";
  const quote = value[0];
  const quoted = value.length >= 2 && (quote === '"' || quote === "'") && value.endsWith(quote);
  return [key, quoted ? value.slice(1, -1) : value];
}
