import { expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeTorn, writeFileAtomic } from "./atomic-file.ts";

test("a file is written whole, under its mode, and what crashed writers left beside it can be removed", async () => {
  const dir = await mkdtemp(join(tmpdir(), "atomic-file-"));
  try {
    const path = join(dir, "token");
    await writeFileAtomic(path, "new", 0o600);
    expect([await readFile(path, "utf8"), (await stat(path)).mode & 0o777]).toEqual(["new", 0o600]);
    const gone = Bun.spawn(["true"]);
    await gone.exited;
    const torn = `token.${gone.pid}.0123abcd.tmp`;
    const others = [
      `token.${process.pid}.0123abcd.tmp`,
      `token.${gone.pid}.tmp`,
      `other.${gone.pid}.0123abcd.tmp`,
    ];
    for (const name of [torn, ...others]) await writeFile(join(dir, name), "secret");
    await removeTorn(path);
    expect((await readdir(dir)).toSorted()).toEqual(["token", ...others].toSorted());
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
