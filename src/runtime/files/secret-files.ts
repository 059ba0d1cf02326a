import { chmod, chown, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tmpfsMount, umount } from "../../native/linux.ts";
import { errnoOf, messageOf } from "../../std/error.ts";
import { RuntimeError } from "../error.ts";
import type { ContainerSpec } from "../spec.ts";

/** Values are small; this is what a file system for them may take of memory at most. */
const sizeBytesMax = 16 * 1024 * 1024;

/** A secret's file on the host, and where the container sees it. */
export interface SecretFile {
  readonly source: string;
  readonly target: string;
}

/**
 * Puts the secrets that the container gets as files into a file system in memory at `directory`, readable by the
 * container's user alone. Nothing is mounted where it gets none.
 * @throws RuntimeError `bad_config`, `create_failed`
 */
export async function writeSecretFiles(
  directory: string,
  spec: ContainerSpec,
  owner: { readonly uid: number; readonly gid: number },
): Promise<SecretFile[]> {
  const wanted = spec.options.secrets.flatMap(({ secretName, path }) =>
    path === undefined ? [] : [{ secretName, path }],
  );
  if (wanted.length === 0) return [];
  try {
    await mkdir(directory, { mode: 0o700 });
    await tmpfsMount(directory, { sizeBytes: sizeBytesMax, mode: 0o700 });
  } catch (cause) {
    throw new RuntimeError("create_failed", `memory for secrets could not be mounted: ${messageOf(cause)}`, {
      cause,
    });
  }
  return Promise.all(
    wanted.map(async ({ secretName, path }, number) => {
      const value = spec.secretFiles?.get(secretName);
      if (value === undefined) {
        throw new RuntimeError("bad_config", `the value of secret ${JSON.stringify(secretName)} is not here`);
      }
      // Numbers, not names: a name of the tenant's choice is no part of a path of the host.
      const source = join(directory, String(number));
      await writeFile(source, value, { mode: 0o400, flag: "wx" });
      await chmod(source, 0o400);
      await chown(source, owner.uid, owner.gid);
      return { source, target: path };
    }),
  );
}

/** Forgets the secrets that were written to `directory`. Nothing there is fine. */
export async function dropSecretFiles(directory: string): Promise<void> {
  try {
    await umount(directory);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== "EINVAL" && errno !== "ENOENT") throw error;
  }
}
