import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildWheel, sdkPython } from "../../../native/wheel.ts";
import { run } from "../../std/spawn.ts";

/** The package as a user has it: its wheel, installed into an environment of its own. */
export class InstalledPackage {
  readonly dir: string;
  readonly wheel: string;
  /** The environment's `bin`. */
  readonly bin: string;

  private constructor(dir: string, wheel: string) {
    this.dir = dir;
    this.wheel = wheel;
    this.bin = join(dir, "venv/bin");
  }

  /** httpx and what tests need come from `.cache/sdk`: nothing is fetched. */
  static async install(): Promise<InstalledPackage> {
    const dir = await mkdtemp(join(tmpdir(), "oci-node-python-"));
    const wheel = await buildWheel(join(dir, "dist"));
    const installed = new InstalledPackage(dir, wheel);
    await run([sdkPython, "-m", "venv", "--without-pip", join(dir, "venv")]);
    const purelib = 'import sysconfig; print(sysconfig.get_path("purelib"))';
    const [theirs, ours] = await Promise.all(
      [sdkPython, installed.python].map(async (python) => (await run([python, "-c", purelib])).stdout.trim()),
    );
    await writeFile(join(ours as string, "cache.pth"), `${theirs}\n`);
    const pip = [sdkPython, "-m", "pip", "--python", installed.python, "--disable-pip-version-check"];
    await run([...pip, "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel]);
    return installed;
  }

  get python(): string {
    return join(this.bin, "python");
  }

  /** Names of what the wheel has in it. */
  async files(): Promise<string[]> {
    const { stdout } = await run([this.python, "-m", "zipfile", "-l", this.wheel]);
    return stdout
      .split("\n")
      .slice(1)
      .map((line) => line.split(/\s{2,}/)[0] ?? "")
      .filter((name) => name !== "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** The package's modules in the sources. */
export async function modules(): Promise<string[]> {
  const names = await readdir(join(import.meta.dir, "oci_node"));
  return names.filter((name) => name !== "__pycache__").map((name) => `oci_node/${name}`);
}
