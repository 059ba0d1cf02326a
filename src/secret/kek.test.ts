import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, chown, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { boundTo } from "./envelope.ts";
import type { SecretError } from "./error.ts";
import { KeyFile } from "./kek.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "oci-node-kek-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function refusal(path: string, options = {}): Promise<string> {
  const error = await KeyFile.open(path, options).then(
    () => undefined,
    (thrown: unknown) => thrown as SecretError,
  );
  expect(error?.code).toBe("key_file");
  expect(error?.next).toBeString();
  return error?.message.replace(path, "FILE") ?? "";
}

test("makes a key file that only its owner can read, and reads the same key again", async () => {
  const path = join(folder, "made/here/key");
  const made = await KeyFile.open(path, { create: true });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  const read = await KeyFile.open(path);
  expect(read.id).toBe(made.id);
  const aad = boundTo("x");
  const key = new Uint8Array(32).fill(5);
  expect(Array.from(await read.unwrap(await made.wrap(key, aad), aad))).toEqual(Array.from(key));
  expect(await readdir(join(folder, "made/here"))).toEqual(["key"]);
});

test("several that make it at the same time get one key", async () => {
  const path = join(folder, "race");
  const keys = await Promise.all(Array.from({ length: 8 }, () => KeyFile.open(path, { create: true })));
  expect(new Set(keys.map((key) => key.id)).size).toBe(1);
});

test("refuses a key file that is missing, loose, a link, another's, or no key", async () => {
  const path = join(folder, "refused");
  expect(await refusal(path)).toBe("the key file FILE does not exist");
  await KeyFile.open(path, { create: true });
  for (const mode of [0o640, 0o604, 0o660]) {
    await chmod(path, mode);
    expect(await refusal(path, { create: true })).toBe("the key file FILE can be read by others");
  }
  await chmod(path, 0o600);
  await chown(path, 65534, 65534);
  expect(await refusal(path)).toBe("the key file FILE belongs to another user");
  await chown(path, 0, 0);
  await symlink(path, join(folder, "link"));
  expect(await refusal(join(folder, "link"))).toBe("the key file FILE is a symbolic link");
  expect(await refusal(folder)).toBe("the key file FILE is not a regular file");
  const key = (await readFile(path, "latin1")).trim();
  for (const text of [
    "",
    "oci-node-key-v1 AAAA",
    `${key}\n${key}`,
    key.replace("v1", "v2"),
    "x".repeat(2000),
  ]) {
    await writeFile(path, text);
    expect(await refusal(path)).toBe("the key file FILE is not a key file");
  }
});

test("shows nothing of the key", async () => {
  const path = join(folder, "hidden");
  const kek = await KeyFile.open(path, { create: true });
  const key = (await readFile(path, "latin1")).split(" ")[1]?.trim() ?? "";
  const shown = inspect(kek, { depth: 10, showHidden: true }) + JSON.stringify(kek);
  expect(shown).not.toContain(key);
  expect(shown).not.toContain(Buffer.from(key, "base64").toString("hex").slice(0, 8));
});
