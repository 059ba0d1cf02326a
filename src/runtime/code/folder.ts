import { chmod, mkdir, open, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { CodeFileSink, CodeSink } from "./archive.ts";

/** Whoever the container's user is reads them; whoever writes them is root alone. */
const modeOf = (isExecutable: boolean): number => (isExecutable ? 0o755 : 0o644);

/**
 * Makes a tree of code in an empty folder of ours. Symbolic links come last, so that nothing is ever written through one;
 * a name that is there already is refused by the kernel.
 */
export class CodeFolder implements CodeSink {
  readonly #root: string;
  /** Whether this process's umask takes away what everybody may. */
  readonly #masked = (process.umask() & 0o755) !== 0;

  /** @param root an empty directory that nobody else writes to */
  constructor(root: string) {
    this.#root = root;
  }

  async directory(path: string): Promise<void> {
    const directory = join(this.#root, path);
    await mkdir(directory, { mode: 0o755 });
    if (this.#masked) await chmod(directory, 0o755);
  }

  async whole(path: string, isExecutable: boolean, bytes: Uint8Array): Promise<void> {
    const file = join(this.#root, path);
    await writeFile(file, bytes, { flag: "wx", mode: modeOf(isExecutable) });
    if (this.#masked) await chmod(file, modeOf(isExecutable));
  }

  async begin(path: string, isExecutable: boolean): Promise<CodeFileSink> {
    const mode = modeOf(isExecutable);
    const file = await open(join(this.#root, path), "wx", mode);
    if (this.#masked) await file.chmod(mode);
    return {
      write: (bytes) => file.writeFile(bytes),
      close: () => file.close(),
    };
  }

  async link(path: string, target: string): Promise<void> {
    await symlink(target, join(this.#root, path));
  }
}
