/** `npm run sdk`: builds the Python package's wheel into dist/. */
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { messageOf } from "../src/std/error.ts";
import { cleanEnvironment, run } from "../src/std/spawn.ts";

const root = join(import.meta.dir, "..");
const source = join(root, "src/sdk/python");
/** Everything that builds, checks and tests the package; made by `node native/setup.mjs --for sdk`. */
export const sdkPython = join(root, ".cache/sdk/bin/python");

/** Gives the wheel's path. The same sources give the same bytes. */
export async function buildWheel(outDir = join(root, "dist")): Promise<string> {
  const scratch = await mkdtemp(join(tmpdir(), "oci-node-wheel-"));
  try {
    // Out of the sources' own folder: nothing that lies there beside them gets in, and nothing is left there.
    for (const file of ["pyproject.toml", "README.md"]) await cp(join(source, file), join(scratch, file));
    await cp(join(root, "LICENSE"), join(scratch, "LICENSE"));
    await cp(join(source, "oci_node"), join(scratch, "oci_node"), {
      recursive: true,
      filter: (path) => !path.endsWith("__pycache__"),
    });
    await mkdir(outDir, { recursive: true });
    const { stdout, stderr } = await run(
      [sdkPython, "-m", "hatchling", "build", "-t", "wheel", "-d", outDir],
      {
        cwd: scratch,
        timeoutMs: 120_000,
        // As old as a file in a zip archive can be.
        env: { ...cleanEnvironment, PYTHONDONTWRITEBYTECODE: "1", SOURCE_DATE_EPOCH: "315532800" },
      },
    );
    const name = /\S+\.whl/
      .exec(stdout + stderr)?.[0]
      ?.split("/")
      .at(-1);
    if (name === undefined) throw new Error(`hatchling named no wheel: ${stdout}`);
    return join(outDir, name);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  try {
    process.stdout.write(`${await buildWheel()}\n`);
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  }
}
