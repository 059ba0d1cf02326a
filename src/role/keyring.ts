import { type Config, ConfigError, readConfig } from "../config.ts";
import type { IdentityDependencies } from "../credential/issuer.ts";
import { SecretError } from "../secret/error.ts";
import { type KeyEncryptionKey, KeyFile, keyFromVariable } from "../secret/kek.ts";
import { AwsKmsKey } from "../secret/key-aws-kms.ts";
import { type FoundKeyFile, findKeyFile, keyFilesIn, keyFolder } from "../secret/key-folder.ts";
import { GcpKmsKey } from "../secret/key-gcp-kms.ts";
import type { HeldKey, KeySource } from "../secret/keyring-live.ts";
import { CodedError } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { createIdentities } from "./identities.ts";

const log = logger("secret");

/** The key files of a configuration that are on this host, with their names in `[keys]`. @throws SecretError `key_file` */
export async function keyFilesOf(
  config: Pick<Config, "keyFile" | "keys">,
): Promise<readonly (FoundKeyFile & { readonly name?: string })[]> {
  const named = Object.entries(config.keys).flatMap(([name, each]) =>
    each.type === "file" ? [{ name, path: each.path }] : [],
  );
  const found = await Promise.all([
    ...named.map(async ({ name, path }) => {
      const file = await findKeyFile(path);
      return file === undefined ? undefined : { ...file, name };
    }),
    findKeyFile(config.keyFile),
  ]);
  const all = [
    ...found.filter((file) => file !== undefined),
    ...(await keyFilesIn(keyFolder(config.keyFile))),
  ];
  return all.filter((file, index) => all.findIndex(({ key }) => key.id === file.key.id) === index);
}

type KeySettings = Config["keys"][string];
type ServiceSettings = Extract<KeySettings, { identity: string }>;

export interface KeySourceOptions {
  readonly issuers: IdentityDependencies;
  /** Variables that may hold keys; undefined: none may, as everywhere but in `dev`. */
  readonly env: Readonly<Record<string, string | undefined>> | undefined;
  /** Called when a key file was made. */
  readonly onMade?: (path: string) => void;
}

/**
 * The keys that the configuration names and the files beside the first one. The configuration's file is read again with
 * them, so that a key that is added there is known without a new start.
 *
 * @throws ConfigError when a key's settings are wrong
 */
export function keySource(config: Config, options: KeySourceOptions): KeySource {
  const services = new Map<string, HeldKey["key"]>();
  let settings = config;
  let isFirstLoad = true;
  checkKinds(config, options);

  /** An instance is kept: in it is what the key service unwrapped. */
  const keptKey = (each: ServiceSettings): HeldKey["key"] => {
    const id = JSON.stringify([each, settings.identities[each.identity]]);
    const key = services.get(id) ?? serviceKey(settings, each, options.issuers);
    services.set(id, key);
    return key;
  };

  const named = (name: string, each: Exclude<KeySettings, { type: "file" }>): HeldKey => {
    if (each.type !== "env") return { key: keptKey(each), name, place: each.key, exportedAt: undefined };
    const key = keyFromVariable(each.variable, options.env?.[each.variable]);
    return { key, name, place: `$${each.variable}`, exportedAt: undefined };
  };

  const made = (path: string): void => {
    log.warn("a key-encryption key was made: without a copy of it, losing it loses every secret", {
      path,
      next: "Keep a copy apart from the database: oci-node key export --to FILE",
    });
    options.onMade?.(path);
  };

  const open = async (path: string, name: string | undefined): Promise<HeldKey> => {
    const found = await findKeyFile(path);
    if (found !== undefined) return heldFile(found, name);
    const key = await KeyFile.open(path, { create: true });
    made(path);
    return heldFile({ path, key, exportedAt: undefined }, name);
  };

  return {
    async load() {
      if (!isFirstLoad) settings = readAgain(settings, options);
      isFirstLoad = false;
      const files = await keyFilesOf({ keyFile: config.keyFile, keys: settings.keys });
      const others = Object.entries(settings.keys).flatMap(([name, each]) =>
        each.type === "file" ? [] : [named(name, each)],
      );
      return [...files.map((file) => heldFile(file, file.name)), ...others];
    },
    async first() {
      if (config.first_key === undefined) return await open(config.keyFile, undefined);
      const each = config.keys[config.first_key];
      if (each?.type === "file") return await open(each.path, config.first_key);
      if (each !== undefined) return named(config.first_key, each);
      throw new SecretError("not_found", `[keys] has no ${config.first_key}`);
    },
    async make(name) {
      if (name === undefined) {
        const { path, key } = await KeyFile.makeIn(keyFolder(config.keyFile));
        made(path);
        return heldFile({ path, key, exportedAt: undefined }, undefined);
      }
      const each = settings.keys[name];
      if (each?.type === "file") return await open(each.path, name);
      throw new SecretError("not_found", `no key-encryption key ${name}`, {
        next: "See `oci-node key ls`, or add it to [keys] in the node's configuration.",
      });
    },
    async advice(id) {
      const [kind = "", name = ""] = id.includes(":") ? splitOnce(id) : ["file", id];
      if (kind !== "file") {
        return `Add it to the node's configuration: [keys.NAME] type = "${kind}", key = "${name}" and its identity.`;
      }
      const missing = (await findKeyFile(config.keyFile)) === undefined;
      const first = missing ? `The key file ${config.keyFile} does not exist. ` : "";
      return `${first}Put the file with that key into ${keyFolder(config.keyFile)}, or bring it back from its copy: oci-node key import FILE. Without it nothing that is under it can be opened.`;
    },
  };
}

function heldFile({ path, key, exportedAt }: FoundKeyFile, name: string | undefined): HeldKey {
  return { key, name, place: path, exportedAt };
}

function splitOnce(text: string): [string, string] {
  const colon = text.indexOf(":");
  return [text.slice(0, colon), text.slice(colon + 1)];
}

/** The configuration as its file is now; what is wrong with it must not stop what runs. */
function readAgain(settings: Config, options: KeySourceOptions): Config {
  if (settings.source === undefined) return settings;
  try {
    const { keys, identities } = readConfig(settings.source);
    const next = { ...settings, keys, identities };
    checkKinds(next, options);
    return next;
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    log.warn("the configuration was not read again for its keys", { error: error.message });
    return settings;
  }
}

/** What is wrong with a key's settings is found at the start, not when a secret is wanted. */
function checkKinds({ keys, identities }: Config, { env }: KeySourceOptions): void {
  for (const [name, each] of Object.entries(keys)) {
    if (each.type === "env" && env === undefined) {
      throw new ConfigError("invalid", `keys.${name}: a key in a variable is for \`oci-node dev\` only`, {
        next: "Name a file or a key service: whoever sees the process's environment has such a key.",
      });
    }
    if (each.type === "env") keyFromVariable(each.variable, env?.[each.variable]);
    if (each.type !== "aws-kms" && each.type !== "gcp-kms") continue;
    const cloud = each.type === "aws-kms" ? "aws" : "gcp";
    if (identities[each.identity]?.type !== cloud) {
      throw new ConfigError(
        "invalid",
        `keys.${name}.identity: ${each.identity} is no identity of type ${cloud}`,
        {
          next: `Describe it under [identities.${each.identity}], with type = "${cloud}".`,
        },
      );
    }
  }
}

/** A key at a key service. @throws ConfigError when the settings of its identity are wrong */
export function serviceKey(
  { identities }: Pick<Config, "identities">,
  each: ServiceSettings,
  issuers: IdentityDependencies,
): KeyEncryptionKey {
  const settings = identities[each.identity];
  const identity =
    settings === undefined
      ? undefined
      : createIdentities({ [each.identity]: settings }, issuers).get(each.identity);
  if (identity === undefined) throw new Error(`the identity ${each.identity} is not there`);
  const send = issuers.fetch;
  return each.type === "aws-kms"
    ? new AwsKmsKey({ arn: each.key, identity, send })
    : new GcpKmsKey({ name: each.key, identity, send });
}
