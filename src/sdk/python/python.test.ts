import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { buildWheel, sdkPython } from "../../../native/wheel.ts";
import { run, tryRun } from "../../std/spawn.ts";
import { runnerFiles } from "../runner/files.ts";
import { InstalledPackage, modules } from "./package.test-kit.ts";

const env = { PYTHONDONTWRITEBYTECODE: "1", HOME: "/nonexistent", TERM: "dumb" };
const runner = join(import.meta.dir, "../runner");
let installed: InstalledPackage;

beforeAll(async () => {
  installed = await InstalledPackage.install();
});
afterAll(() => installed?.[Symbol.asyncDispose]());

test("the wheel has the package and nothing else, needs httpx alone, and comes out the same each time", async () => {
  const files = await installed.files();
  const metadata = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"];
  const all = [...(await modules()), ...metadata.map((name) => `oci_node-0.1.0.dist-info/${name}`)];
  expect(files.toSorted()).toEqual(all.toSorted());
  const again = await buildWheel(join(installed.dir, "again"));
  expect((await readFile(again)).equals(await readFile(installed.wheel))).toBe(true);
  const requires =
    "import importlib.metadata as m; d = m.metadata('oci-node'); print(d.get_all('Requires-Dist'), d['Requires-Python'])";
  const { stdout } = await run([installed.python, "-c", requires]);
  expect(stdout.trim()).toMatch(/^\['httpx[<>=0-9.,]+'\] >=3\.8$/);
  const checked = await run([sdkPython, "-m", "pip", "--python", installed.python, "check"]);
  expect(checked.stdout).toBe("No broken requirements found.\n");
});

test("the package's version is the node's", async () => {
  const { version } = JSON.parse(await readFile(join(import.meta.dir, "../../../package.json"), "utf8"));
  const told = await run([join(installed.bin, "oci-node-py"), "--version"], { env });
  expect(told.stdout).toBe(`oci-node-py ${version}\n`);
  const project = await readFile(join(import.meta.dir, "pyproject.toml"), "utf8");
  expect(project).toContain(`\nversion = "${version}"\n`);
});

test("the package's own tests pass on what was installed", async () => {
  const tests = join(import.meta.dir, "tests");
  const argv = [installed.python, "-P", "-m", "pytest", "-c", join(import.meta.dir, "pyproject.toml"), tests];
  const base = ["--basetemp", join(installed.dir, "pytest")];
  const result = await tryRun([...argv, ...base], { cwd: installed.dir, env, timeoutMs: 100_000 });
  expect([result.exitCode, result.stdout.match(/^(FAILED|ERROR) .*/gm)]).toEqual([0, null]);
  expect(result.stdout).toMatch(/^\d{2,} passed in/m);
});

test("its types hold, and those of a user's file", async () => {
  const mypy = (files: string[], cwd: string) =>
    tryRun(
      [installed.python, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", "/dev/null", ...files],
      {
        cwd,
        env,
      },
    );
  const [own, users] = await Promise.all([
    mypy(["--python-version", "3.10", "oci_node"], import.meta.dir),
    mypy(["typed_use.py"], join(import.meta.dir, "tests")),
  ]);
  expect([own.stdout, own.exitCode]).toEqual([
    expect.stringMatching(/^Success: no issues found in \d+ source files\n$/),
    0,
  ]);
  // Each line that is wrong there says so, and `--strict` objects to one that need not.
  expect([users.stdout, users.exitCode]).toEqual(["Success: no issues found in 1 source file\n", 0]);
});

test("the package and the runner are of Python 3.8, and the runner's door of any", async () => {
  const vermin = (target: string, ...paths: string[]) =>
    tryRun([join(sdkPython, "../vermin"), `-t=${target}`, "--no-tips", "--violations", ...paths], { env });
  const found = await Promise.all([
    vermin("3.8-", join(import.meta.dir, "oci_node"), join(runner, "oci_node_runner"), join(runner, "stub")),
    vermin("2.7-", join(runner, "__main__.py")),
    vermin("3.0-", join(runner, "__main__.py")),
  ]);
  const wrong = found.filter(({ exitCode }) => exitCode !== 0).map(({ stdout }) => stdout);
  expect(wrong).toEqual([]);
});

test("what stands for the package in containers has each of its names, and its messages are the same", async () => {
  const listed = (text: string) => text.match(/__all__ = \[[\s\S]*?\]/)?.[0];
  const own = await readFile(join(import.meta.dir, "oci_node/__init__.py"), "utf8");
  expect(listed(own)).toBeString();
  expect(listed(runnerFiles["stub/oci_node/__init__.py"] ?? "")).toBe(listed(own));
  const messages = await readFile(join(import.meta.dir, "oci_node/messages.py"), "utf8");
  expect(runnerFiles["oci_node_runner/messages.py"]).toBe(messages);
});
