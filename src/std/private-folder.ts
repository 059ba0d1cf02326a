import { chmod, mkdir, stat } from "node:fs/promises";

const others = 0o007;

/** Makes a folder for its owner alone. Of one that is there what its group may stays; what others may is taken away. */
export async function makePrivateFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const { mode } = await stat(path);
  if ((mode & others) !== 0) await chmod(path, mode & 0o7777 & ~others);
}
