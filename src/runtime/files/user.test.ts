import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveUser } from "./user.ts";

let directory: string;
let root: string;
let bare: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-user-"));
  root = join(directory, "root");
  bare = join(directory, "bare");
  await mkdir(join(root, "usr/etc"), { recursive: true });
  await mkdir(bare);
  await symlink("usr/etc", join(root, "etc"));
  await writeFile(
    join(root, "etc/passwd"),
    "root:x:0:0::/root:\n\nann:x:1000:100:Ann:/home/ann:/bin/sh\n42:x:7:7::/odd:\nbig:x:99999999999:1::/:\nno:x:::/:\nrel:x:5:5::home:\n",
  );
  await writeFile(join(root, "etc/group"), "users:x:100:\nwheel:x:10:root,ann\n+::\nlast:x:11:ann");
});

afterAll(() => rm(directory, { recursive: true }));

test("is root when the image names nobody", async () => {
  expect(await resolveUser(root, "")).toEqual({ uid: 0, gid: 0, additionalGids: [0, 10], home: "/root" });
  expect(await resolveUser(bare, "")).toEqual({ uid: 0, gid: 0, additionalGids: [0], home: "/" });
});

test("finds a user by name or number with the groups that list it", async () => {
  const ann = { uid: 1000, gid: 100, additionalGids: [100, 10, 11], home: "/home/ann" };
  expect(await resolveUser(root, "ann")).toEqual(ann);
  expect(await resolveUser(root, "1000")).toEqual(ann);
});

test("takes a group that is named instead of those that list the user", async () => {
  expect(await resolveUser(root, "ann:wheel")).toMatchObject({ uid: 1000, gid: 10, additionalGids: [10] });
  expect(await resolveUser(root, "ann:77")).toMatchObject({ gid: 77, additionalGids: [77] });
  expect(await resolveUser(root, ":wheel")).toMatchObject({ uid: 0, gid: 10 });
});

test("takes a name that is a number for the name first", async () => {
  expect(await resolveUser(root, "42")).toMatchObject({ uid: 7, gid: 7 });
});

test("takes numbers that nobody knows", async () => {
  expect(await resolveUser(bare, "2147483647:5")).toMatchObject({ uid: 2_147_483_647, gid: 5, home: "/" });
  const high = await resolveUser(bare, "5:2147483648").catch((error: unknown) => error);
  expect(high).toMatchObject({ code: "bad_user" });
  expect(high).toHaveProperty("message", "a process cannot have the user or group 2147483648");
});

test("goes home to the root directory when passwd names no absolute one", async () => {
  expect(await resolveUser(root, "rel")).toMatchObject({ uid: 5, home: "/" });
});

test("refuses names and numbers that are no user", async () => {
  for (const user of ["eve", "-1", "4294967295", "1e3", "big", "no", "ann:eve", "+", " "]) {
    expect(await resolveUser(root, user).catch((error: unknown) => error)).toMatchObject({
      code: "bad_user",
    });
  }
});
