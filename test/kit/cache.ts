import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

const cacheDir = join(import.meta.dir, "../../.cache");

/**
 * A folder that is costly to make, kept in `.cache` of the working copy under a hash of everything that it is made from.
 * Made in a folder beside it and renamed, so that a broken attempt leaves nothing that looks whole.
 */
export async function cachedFolder(
  name: string,
  inputs: unknown,
  make: (dir: string) => Promise<void>,
): Promise<string> {
  const key = createHash("sha256").update(JSON.stringify(inputs)).digest("hex").slice(0, 16);
  const path = join(cacheDir, `${name}-${key}`);
  if (await exists(path)) return path;
  await mkdir(cacheDir, { recursive: true });
  const beside = await mkdtemp(join(cacheDir, `.${name}-`));
  try {
    await make(beside);
    await rename(beside, path).catch(async (error) => {
      if (!(await exists(path))) throw error;
    });
    return path;
  } finally {
    await rm(beside, { recursive: true, force: true });
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
