import { expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildRelease } from "../native/release.ts";
import { run } from "../src/std/spawn.ts";

test("a release has the executable, a checksum that fits, and the licenses of all that is inside", async () => {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-release-test-"));
  try {
    const archive = await buildRelease(dir);
    expect(archive).toMatch(/oci-node-\d+\.\d+\.\d+-linux-x64\.tar\.gz$/);
    await run(["sha256sum", "-c", `${archive}.sha256`], { cwd: dir });
    await run(["tar", "-xzf", archive, "-C", dir]);
    const unpacked = archive.replace(/\.tar\.gz$/, "");
    expect((await readdir(unpacked)).sort()).toEqual([
      "CHANGELOG.md",
      "LICENSE",
      "OPERATING.md",
      "README.md",
      "licences",
      "oci-node",
      "oci_node-0.1.0-py3-none-any.whl",
    ]);
    expect((await run([join(unpacked, "oci-node"), "--version"])).stdout).toMatch(/\d+\.\d+\.\d+/);
    const licences = await readdir(join(unpacked, "licences"));
    expect(licences).toEqual(
      expect.arrayContaining([
        "bun.txt",
        "postgresql.txt",
        "libc6-dev.txt",
        "libfuse3-dev.txt",
        "zlib1g-dev.txt",
        "libdeflate-dev.txt",
        "libzstd-dev.txt",
      ]),
    );
    const packages = await readdir(join(unpacked, "licences/npm"));
    expect(packages).toEqual(
      expect.arrayContaining(["drizzle-orm.txt", "@connectrpc_connect.txt", "hpke.txt"]),
    );
    expect(packages).not.toContain("typescript.txt");
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
