/**
 * `npm run release`: packs the executable and the Python package with its license and those of everything inside of it into
 * dist/oci-node-VERSION-linux-x64.tar.gz, and writes the archive's SHA-256 beside it.
 */
import { createHash } from "node:crypto";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { messageOf } from "../src/std/error.ts";
import { run } from "../src/std/spawn.ts";
import { buildBinary } from "./binary.ts";
import { writeLicences } from "./licences.ts";
import { buildWheel } from "./wheel.ts";

const root = join(import.meta.dir, "..");

/** Builds and packs; gives the archive's path. The same sources give the same names, owners and times in it. */
export async function buildRelease(outDir = join(root, "dist")): Promise<string> {
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
  const name = `oci-node-${version}-linux-x64`;
  const scratch = await mkdtemp(join(tmpdir(), "oci-node-release-"));
  try {
    const stage = join(scratch, name);
    await mkdir(stage);
    await copyFile(await buildBinary(), join(stage, "oci-node"));
    await buildWheel(stage);
    for (const file of ["LICENSE", "README.md", "OPERATING.md", "CHANGELOG.md"])
      await copyFile(join(root, file), join(stage, file));
    await writeLicences(join(stage, "licences"));
    await mkdir(outDir, { recursive: true });
    const archive = join(outDir, `${name}.tar.gz`);
    const options = [
      "--sort=name",
      "--owner=0",
      "--group=0",
      "--numeric-owner",
      "--mtime=@0",
      "--mode=u+rw,go+r,go-w",
    ];
    await run(["tar", "-czf", archive, ...options, "-C", scratch, name], { timeoutMs: 300_000 });
    const sha256 = createHash("sha256")
      .update(await readFile(archive))
      .digest("hex");
    await writeFile(`${archive}.sha256`, `${sha256}  ${basename(archive)}\n`);
    return archive;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  try {
    process.stdout.write(`${await buildRelease()}\n`);
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  }
}
