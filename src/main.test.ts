import { expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./std/spawn.ts";

test("a command whose reader is gone ends as other programs do, without a word", async () => {
  const folder = mkdtempSync(join(tmpdir(), "oci-node-main-"));
  try {
    const pipe = join(folder, "pipe");
    await run(["mkfifo", pipe]);
    const reader = openSync(pipe, "r+");
    const writer = openSync(pipe, "w");
    closeSync(reader);
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "main.ts"), "umount", "--help"], {
      stdio: ["ignore", writer, "pipe"],
    });
    closeSync(writer);
    expect(await new Response(child.stderr).text()).toBe("");
    expect(await child.exited).toBe(141);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
