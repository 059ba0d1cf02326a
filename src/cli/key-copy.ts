import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { type Config, makeConfig, readSettings } from "../config.ts";
import { keyFilesOf } from "../role/keyring.ts";
import { exportKeyFile, importKeyFile } from "../secret/key-export.ts";
import { errnoOf } from "../std/error.ts";
import { PrivateFileError, readPrivateFile } from "../std/private-file.ts";
import { Redacted } from "../std/redacted.ts";
import { command, words } from "./action.ts";
import { CliError } from "./context.ts";
import { askHidden } from "./hidden.ts";
import { note, printJson, printLine } from "./output.ts";

interface CopyFlags {
  readonly json: boolean;
  readonly config?: string;
  readonly dataDir?: string;
  readonly passphraseFile?: string;
}

const copyFlags = {
  config: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "The node's configuration file (TOML)",
    placeholder: "FILE",
  },
  dataDir: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "The node's data folder (default /var/lib/oci-node)",
    placeholder: "DIR",
  },
  passphraseFile: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "File whose first line is the passphrase, readable by you only; default: it is asked for",
    placeholder: "FILE",
  },
} as const;

export const exportKey = command<CopyFlags & { key?: string; to: string }>({
  brief: "Write a copy of a key file for your safe, encrypted with a passphrase",
  fullDescription:
    "Runs on the host that has the key, without any server: keys are not sent. The copy opens with the passphrase only; keep both apart " +
    "from the database and from each other. Keys in a key service cannot be copied: look after their deletion there.",
  flags: {
    ...copyFlags,
    key: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Id of the key, or its name in [keys]; needed where the host has several",
      placeholder: "ID|NAME",
    },
    to: {
      kind: "parsed",
      parse: String,
      brief: "The file to write; it must not be there",
      placeholder: "FILE",
    },
  },
  async run(flags) {
    const path = await choose(configOf(flags), flags.key);
    const passphrase = await passphraseOf(flags, { twice: true });
    const to = resolve(flags.to);
    const id = await exportKeyFile(path, to, passphrase);
    if (flags.json) printJson({ key: id, from: path, to });
    else printLine(`${id}: copied to ${to}`);
    note("note: bring it to another place; `oci-node key import FILE` puts the key back");
    return 0;
  },
});

export const importKey = command<CopyFlags, [string]>({
  brief: "Put a key back on this host out of its copy; overwrites nothing",
  flags: copyFlags,
  positional: words({ placeholder: "FILE", brief: "What `key export` wrote" }),
  async run(flags, file) {
    const config = configOf(flags);
    const text = readText(file);
    const passphrase = await passphraseOf(flags, { twice: false });
    const { id, path } = await importKeyFile(text, config.keyFile, passphrase);
    if (flags.json) printJson({ key: id, path });
    else printLine(`${id}: put into ${path}`);
    return 0;
  },
});

function configOf({ config, dataDir }: CopyFlags): Config {
  const settings = config === undefined ? {} : readSettings(config);
  return makeConfig(dataDir === undefined ? settings : { ...settings, data_dir: dataDir }, config);
}

async function choose(config: Config, wanted: string | undefined): Promise<string> {
  const files = await keyFilesOf(config);
  const ids = files.map(({ key, name }) => (name === undefined ? key.id : `${key.id} (${name})`)).join(", ");
  if (wanted === undefined) {
    if (files[0] !== undefined && files.length === 1) return files[0].path;
    throw files.length > 1
      ? new CliError("usage", `this host has several keys: ${ids}`, { next: "Name one with --key." })
      : new CliError("failed", `there is no key file: ${config.keyFile} does not exist`, {
          next: "Name the node's configuration with --config, or its data folder with --data-dir.",
        });
  }
  const found = files.find(({ key, name }) => key.id === wanted || name === wanted);
  if (found !== undefined) return found.path;
  const settings = Object.hasOwn(config.keys, wanted) ? config.keys[wanted] : undefined;
  if ((settings !== undefined && settings.type !== "file") || wanted.includes(":")) {
    throw new CliError("failed", `the key ${wanted} is not in a file, so there is nothing to copy`, {
      next: "A key service keeps its keys itself: forbid their deletion there, and know how long a deletion can be cancelled.",
    });
  }
  throw new CliError("failed", `this host has no key file with the key ${wanted}`, {
    next: ids === "" ? "Name the node's configuration with --config." : `It has: ${ids}.`,
  });
}

async function passphraseOf(flags: CopyFlags, { twice }: { twice: boolean }): Promise<Redacted<string>> {
  const { passphraseFile } = flags;
  if (passphraseFile !== undefined) return passphraseIn(passphraseFile);
  if (process.stdin.isTTY !== true) {
    throw new CliError("usage", "there is no terminal to ask for the passphrase", {
      next: "Give it with --passphrase-file FILE.",
    });
  }
  const first = await askHidden("passphrase: ");
  if (twice && (await askHidden("again: ")) !== first) {
    throw new CliError("failed", "the two passphrases differ", { next: "Try again." });
  }
  return new Redacted(first);
}

function passphraseIn(path: string): Redacted<string> {
  const text = readText(path, (file) => readPrivateFile(file, { holds: "a passphrase" }));
  return new Redacted(text.split(/\r?\n/)[0] ?? "");
}

function readText(path: string, read = (file: string) => readFileSync(file, "utf8")): string {
  try {
    return read(path);
  } catch (error) {
    if (error instanceof PrivateFileError) throw error;
    throw new CliError("failed", `${path} cannot be read (${errnoOf(error) ?? "unknown"})`, {
      next: "Check its path and its permissions.",
    });
  }
}
