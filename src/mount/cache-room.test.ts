import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../std/spawn.ts";
import { CacheRoom } from "./cache-room.ts";
import { FileLock } from "./file-lock.ts";

const MiB = 1024 * 1024;
let dir: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-room-"));
  await mkdir(join(dir, "disk"));
  await run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", join(dir, "disk")]);
});

afterEach(async () => {
  await run(["umount", join(dir, "disk")]);
  await rm(dir, { recursive: true });
});

async function addLayer(name: string, bytes: number, usedAtSeconds: number): Promise<void> {
  const path = join(dir, "disk", name);
  await writeFile(`${path}.blob`, Buffer.alloc(bytes));
  await writeFile(`${path}.map`, "");
  await writeFile(`${path}.lock`, "");
  await utimes(`${path}.map`, usedAtSeconds, usedAtSeconds);
}

const isThere = (name: string): Promise<boolean> =>
  stat(join(dir, "disk", `${name}.blob`)).then(
    () => true,
    () => false,
  );

test("without a quota, layers make room when their disk is nearly full: the oldest first, none that is used", async () => {
  const room = new CacheRoom(join(dir, "disk"), undefined);
  for (const [at, name] of ["held", "oldest", "newer"].entries()) await addLayer(name, 4 * MiB, 1000 + at);
  const lock = await FileLock.share(join(dir, "disk", "held.lock"));
  expect(await room.hasRoom()).toBe(true);
  await writeFile(join(dir, "disk", "others"), Buffer.alloc(7.5 * MiB));
  expect(await room.hasRoom()).toBe(true);
  expect(await Promise.all(["held", "oldest", "newer"].map(isThere))).toEqual([true, false, true]);
  await lock.release();
});

test("there is no room on a disk that others have filled", async () => {
  const room = new CacheRoom(join(dir, "disk"), undefined);
  await addLayer("held", 4 * MiB, 1000);
  const lock = await FileLock.share(join(dir, "disk", "held.lock"));
  await writeFile(join(dir, "disk", "others"), Buffer.alloc(15.5 * MiB));
  expect(await room.hasRoom()).toBe(false);
  expect(await isThere("held")).toBe(true);
  await lock.release();
  expect(await room.hasRoom()).toBe(true);
  expect(await isThere("held")).toBe(false);
});
