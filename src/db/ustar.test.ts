import { expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../std/spawn.ts";
import { readUstar } from "./ustar.ts";

async function tarOf(make: (folder: string) => Promise<void>, ...options: string[]): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), "oci-node-ustar-"));
  try {
    await mkdir(join(folder, "in"));
    await make(join(folder, "in"));
    await run([
      "tar",
      "--format=ustar",
      "--sort=name",
      ...options,
      "-cf",
      `${folder}/out.tar`,
      "-C",
      `${folder}/in`,
      ".",
    ]);
    return await Bun.file(join(folder, "out.tar")).bytes();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

test("reads files, folders and links as tar wrote them", async () => {
  const long = `${"d".repeat(90)}/${"f".repeat(90)}`;
  const archive = await tarOf(async (folder) => {
    await writeFile(join(folder, "file"), "x".repeat(1000), { mode: 0o755 });
    await mkdir(join(folder, "d".repeat(90)));
    await writeFile(join(folder, long), "");
    await symlink("file", join(folder, "link"));
  });
  const entries = [...readUstar(archive)].map(({ name, type, mode, link, data }) => [
    name,
    type,
    mode & 0o111,
    link,
    data.length,
  ]);
  expect(entries.filter(([, type]) => type !== "dir")).toEqual([
    [long, "file", 0, "", 0],
    ["file", "file", 0o111, "", 1000],
    ["link", "symlink", 0o111, "file", 0],
  ]);
});

test("refuses an archive that is cut short", async () => {
  const archive = await tarOf((folder) => writeFile(join(folder, "file"), "x".repeat(5000)));
  expect(() => [...readUstar(archive.subarray(0, 2048))]).toThrow("cut short");
  expect(() => [...readUstar(archive.subarray(0, 512))]).toThrow("cut short");
});

test("refuses names that leave the folder, and what is no archive", async () => {
  const archive = await tarOf(
    (folder) => writeFile(join(folder, "file"), "x"),
    "--transform=s,file,../file,",
    "-P",
  );
  expect(() => [...readUstar(archive)]).toThrow("leaves its folder");
  expect(() => [...readUstar(new Uint8Array(1024).fill(1))]).toThrow("not a ustar archive");
});
