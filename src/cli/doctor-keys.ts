import { type Config, ConfigError, makeConfig, readConfig } from "../config.ts";
import { keyFilesOf, serviceKey } from "../role/keyring.ts";
import { createRegistryClient } from "../role/registry-client.ts";
import { tryKey } from "../secret/key-rotation.ts";
import { CodedError } from "../std/error.ts";
import type { Finding } from "./finding.ts";
import { ago } from "./output.ts";

type KeySettings = Config["keys"][string];

/**
 * The key-encryption keys of this host: each file as strictly as the node takes it, and whether a copy of it is known;
 * each key of a key service by wrapping something and opening it again.
 */
export async function checkKeys(flags: {
  readonly config?: string;
  readonly dataDir?: string;
}): Promise<Finding[]> {
  try {
    const config =
      flags.config === undefined
        ? makeConfig(flags.dataDir === undefined ? {} : { data_dir: flags.dataDir })
        : readConfig(flags.config);
    const named = Object.entries(config.keys);
    return [
      ...(await checkFiles(config, whereOf(flags))),
      ...(await Promise.all(named.flatMap(([name, each]) => checkNamed(config, name, each)))),
    ];
  } catch (error) {
    // The configuration has a finding of its own.
    if (error instanceof ConfigError) return [];
    throw error;
  }
}

/** How `key export` is told of the same node. */
function whereOf({ config, dataDir }: Parameters<typeof checkKeys>[0]): string {
  if (config !== undefined) return ` --config ${config}`;
  return dataDir === undefined ? "" : ` --data-dir ${dataDir}`;
}

async function checkFiles(config: Config, where: string): Promise<Finding[]> {
  try {
    const files = await keyFilesOf(config);
    if (files.length === 0 && config.first_key === undefined) {
      const found = `no key file yet: the first start makes ${config.keyFile}`;
      return [{ check: "key", state: "ok", found }];
    }
    return files.map(({ path, key, exportedAt }): Finding => {
      const check = "key";
      if (exportedAt !== undefined) {
        return {
          check,
          state: "ok",
          found: `${path} (${key.id}); a copy was exported ${ago(exportedAt)} ago`,
        };
      }
      return {
        check,
        state: "limited",
        found: `${path} (${key.id}) is the only copy that is known: if it is lost, so is every secret under it`,
        next: `oci-node key export${where} --key ${key.id} --to FILE`,
      };
    });
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    return [{ check: "key", state: "bad", ...told(error) }];
  }
}

function checkNamed(config: Config, name: string, settings: KeySettings): Promise<Finding>[] {
  const check = `key ${name}`;
  switch (settings.type) {
    case "file":
      return [];
    case "env":
      return [
        Promise.resolve({
          check,
          state: "limited",
          found: `in the variable ${settings.variable}, for \`oci-node dev\` only`,
          next: "Go on to a file or a key service for what is to be kept: oci-node key rotate.",
        }),
      ];
    default:
      return [checkService(check, config, settings)];
  }
}

async function checkService(
  check: string,
  config: Config,
  settings: Extract<KeySettings, { identity: string }>,
): Promise<Finding> {
  try {
    const client = createRegistryClient(config);
    const issuers = { fetch: client.issuerFetch, metadataFetch: client.metadataFetch };
    await tryKey(serviceKey(config, settings, issuers));
    return { check, state: "ok", found: `${settings.key} wraps and opens` };
  } catch (error) {
    if (error instanceof CodedError) return { check, state: "bad", ...told(error) };
    throw error;
  }
}

function told({ message, next }: CodedError): Pick<Finding, "found" | "next"> {
  return { found: message, ...(next === undefined ? {} : { next }) };
}
