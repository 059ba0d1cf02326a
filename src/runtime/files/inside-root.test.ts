import { afterEach, beforeEach, expect, test } from "bun:test";
import { lstat, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeDirectoryInRoot, readFileInRoot } from "./inside-root.ts";

let directory: string;
let root: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-inside-"));
  root = join(directory, "root");
  await mkdir(join(root, "etc"), { recursive: true });
  await writeFile(join(directory, "secret"), "of the host");
  await writeFile(join(root, "etc/file"), "of the image");
});

afterEach(() => rm(directory, { recursive: true }));

const owner = { uid: 1001, gid: 1002 };

test("reads a file through links, absolute or not, inside of the root", async () => {
  await symlink("/etc", join(root, "absolute"));
  await symlink("../etc/./file", join(root, "etc/relative"));
  for (const path of [
    "/etc/file",
    "etc//file",
    "/absolute/file",
    "/etc/relative",
    "/../../etc/../etc/file",
  ]) {
    expect(await readFileInRoot(root, path, 100)).toBe("of the image");
  }
});

test("never follows a link to the host", async () => {
  await symlink(join(directory, "secret"), join(root, "out"));
  await symlink("../../../../../../../..", join(root, "up"));
  expect(await readFileInRoot(root, "/out", 100)).toBeUndefined();
  expect(await readFileInRoot(root, `/up${directory}/secret`, 100)).toBeUndefined();
  expect(await readFileInRoot(root, "/../secret", 100)).toBeUndefined();
});

test("reads nothing but regular files of a bounded size", async () => {
  Bun.spawnSync(["mkfifo", join(root, "etc/fifo")]);
  for (const path of ["/etc/fifo", "/etc", "/etc/file/below"]) {
    expect(await readFileInRoot(root, path, 100).catch((error: unknown) => error)).toMatchObject({
      code: "bad_config",
    });
  }
  expect(await readFileInRoot(root, "/etc/file", 11).catch((error: unknown) => error)).toMatchObject({
    code: "bad_config",
  });
});

test("gives up on links in a circle", async () => {
  await symlink("b", join(root, "a"));
  await symlink("a", join(root, "b"));
  expect(await readFileInRoot(root, "/a", 100).catch((error: unknown) => error)).toMatchObject({
    code: "bad_config",
  });
});

test("makes what is missing for its owner, inside of the root", async () => {
  await symlink("/../../elsewhere", join(root, "link"));
  await mkdir(join(root, "elsewhere"));
  await makeDirectoryInRoot(root, "/link/a/b", owner);
  for (const path of ["elsewhere/a", "elsewhere/a/b"]) {
    expect(await lstat(join(root, path))).toMatchObject({ uid: 1001, gid: 1002, mode: 0o40755 });
  }
  expect((await lstat(join(root, "elsewhere"))).uid).toBe(0);
  expect((await readdir(directory)).sort()).toEqual(["root", "secret"]);
});

test("makes the target of a dangling link, not the link's on the host", async () => {
  await symlink(join(directory, "made"), join(root, "dangling"));
  await makeDirectoryInRoot(root, "/dangling/x", owner);
  expect((await lstat(join(root, directory, "made/x"))).isDirectory()).toBe(true);
  expect(await readdir(directory)).not.toContain("made");
});

test("refuses to make a directory where a file is, or by way of one that is missing", async () => {
  for (const path of ["/etc/file", "/etc/file/x", "/missing/../etc"]) {
    const failure = await makeDirectoryInRoot(root, path, owner).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "bad_config" });
  }
});

test.each([
  ["a NUL", "/a\0b"],
  ["a part that is too long for Linux", `/${"x".repeat(256)}`],
  ["more parts than a path may have", "/d".repeat(3000)],
])("names a path with %s as the image's fault", async (_, path) => {
  const made = await makeDirectoryInRoot(root, path, owner).catch((error: unknown) => error);
  expect((made as { code: string }).code).toBe("bad_config");
  expect((made as Error).message).toContain("image");
  expect((made as Error).message.length).toBeLessThan(400);
  expect(await readdir(root)).toEqual(["etc"]);
  const read = await readFileInRoot(root, path, 100).catch((error: unknown) => error);
  expect(read === undefined || (read as { code: string }).code === "bad_config").toBe(true);
});
