import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { RuntimeError } from "../error.ts";
import { findPython } from "./find-python.ts";

const path = "/usr/local/bin:/usr/bin:/bin";
let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "oci-node-python-"));
});
afterEach(() => rm(root, { recursive: true }));

async function program(name: string, mode = 0o755): Promise<void> {
  await mkdir(dirname(join(root, name)), { recursive: true });
  await writeFile(join(root, name), "\x7fELF");
  await chmod(join(root, name), mode);
}
async function link(name: string, target: string): Promise<void> {
  await mkdir(dirname(join(root, name)), { recursive: true });
  await symlink(target, join(root, name));
}
const found = (of = path) =>
  findPython(root, of).catch((error: unknown) => {
    if (!(error instanceof RuntimeError) || error.code !== "no_python") throw error;
    return error.message;
  });

test("the first python3 of the search path is taken, by the name that leads to it", async () => {
  await program("usr/bin/python3.11");
  await link("usr/bin/python3", "python3.11");
  await link("bin", "usr/bin");
  expect(await found()).toBe("/usr/bin/python3");
  expect(await found("/bin")).toBe("/bin/python3");
  await link("venv/bin/python3", "/usr/bin/python3");
  expect(await found(`relative:/venv/bin:${path}`)).toBe("/venv/bin/python3");
});

test("else python, else the newest python3.N is", async () => {
  for (const name of [
    "usr/bin/python3.9",
    "usr/bin/python3.12",
    "usr/local/bin/python3.12",
    "usr/bin/python3.7",
  ])
    await program(name);
  await program("usr/bin/python3.13", 0o644);
  await program("usr/bin/python3.14-config");
  expect(await found()).toBe("/usr/local/bin/python3.12");
  await program("opt/python");
  expect(await found(`${path}:/opt`)).toBe("/opt/python");
});

test("what says of itself to be older than 3.8 is passed over, and named where there is nothing else", async () => {
  await program("usr/bin/python3.6");
  await link("usr/bin/python3", "/etc/alternatives/python3");
  await link("etc/alternatives/python3", "/usr/bin/python3.6");
  await program("usr/bin/python2.7");
  await link("usr/bin/python", "python2.7");
  expect(await found()).toBe("the image has no Python 3.8 or newer (found python3.6)");
  await program("usr/bin/python3.8");
  expect(await found()).toBe("/usr/bin/python3.8");
});

test("an image without one is told so, whatever it has by that name", async () => {
  const none =
    "the image has no Python (looked for python3, python, python3.N in /usr/local/bin, /usr/bin, /bin)";
  expect(await found()).toBe(none);
  await program("usr/bin/python3", 0o644);
  await mkdir(join(root, "usr/local/bin/python3"), { recursive: true });
  // The host's is none of the image's.
  await link("usr/bin/python", "../../../../../../../../../../bin/sh");
  await link("bin/python3", "/bin/python3");
  expect(await found()).toBe(none);
  expect(await found("")).toBe(
    "the image has no Python (looked for python3, python, python3.N in an empty search path)",
  );
});
