import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { errnoOf, messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { KeyFile } from "./kek.ts";

const log = logger("secret");
const keyName = /^[0-9a-f]{16}$/;

/** A key file, and when a copy of it was exported last, as far as this host knows. */
export interface FoundKeyFile {
  readonly path: string;
  readonly key: KeyFile;
  readonly exportedAt: Date | undefined;
}

/** The folder for the key files that rotations make: `keys`, beside the first key file. */
export function keyFolder(keyFile: string): string {
  return join(dirname(keyFile), "keys");
}

/** Remembers, beside a key file, that a copy of it was exported. */
export function exportMarker(keyFile: string): string {
  return `${keyFile}.exported`;
}

/** A key file, undefined when there is none. @throws SecretError `key_file` */
export async function findKeyFile(path: string): Promise<FoundKeyFile | undefined> {
  const key = await KeyFile.find(path);
  return key === undefined ? undefined : { path, key, exportedAt: await exportedAt(path) };
}

/** The key files of a folder, each named by its key's id. One that cannot be used is told of and left out. */
export async function keyFilesIn(folder: string): Promise<FoundKeyFile[]> {
  const names = await readdir(folder).catch((error: unknown) => {
    if (errnoOf(error) !== "ENOENT") log.warn("the folder of keys cannot be read", { path: folder });
    return [] as string[];
  });
  const found: FoundKeyFile[] = [];
  for (const name of names.filter((each) => keyName.test(each)).sort()) {
    const path = join(folder, name);
    try {
      const file = await findKeyFile(path);
      if (file?.key.id === name) found.push(file);
      else if (file !== undefined) log.warn("a key file does not hold the key of its name", { path });
    } catch (error) {
      log.warn("a key file is left out", { error: messageOf(error) });
    }
  }
  return found;
}

async function exportedAt(path: string): Promise<Date | undefined> {
  const text = await readFile(exportMarker(path), "utf8").catch(() => "");
  const at = new Date(text.trim());
  return text === "" || Number.isNaN(at.getTime()) ? undefined : at;
}
