import { expect, test } from "bun:test";
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { run } from "../std/spawn.ts";
import { migrations } from "./migrations.ts";

const top = join(import.meta.dir, "../..");

test("imports every migration of the journal, and the folder has no others", async () => {
  const files = (await readdir(join(top, "drizzle"))).filter((name) => name.endsWith(".sql"));
  const journal = JSON.parse(await readFile(join(top, "drizzle/meta/_journal.json"), "utf8"));
  const tags: string[] = journal.entries.map((entry: { tag: string }) => entry.tag);
  expect(files.sort()).toEqual(tags.map((tag) => `${tag}.sql`).sort());
  expect(migrations()).toHaveLength(tags.length);
  for (const [index, tag] of tags.entries()) {
    const text = await readFile(join(top, `drizzle/${tag}.sql`), "utf8");
    expect(migrations()[index]?.sql.join("--> statement-breakpoint")).toBe(text);
  }
});

test("the migrations say all that the schema says", async () => {
  const copy = await mkdtemp(join(tmpdir(), "oci-node-drizzle-"));
  try {
    await cp(join(top, "drizzle"), copy, { recursive: true });
    const options = [
      "--dialect",
      "postgresql",
      "--schema",
      "src/db/schema*.ts",
      "--out",
      relative(top, copy),
    ];
    const { stdout } = await run(["node", "node_modules/drizzle-kit/bin.cjs", "generate", ...options], {
      cwd: top,
    });
    expect(stdout).toContain("No schema changes");
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}, 60_000);
