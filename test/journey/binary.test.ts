import { expect, test } from "bun:test";
import { copyFile, mkdir, readdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tryRun } from "../../src/std/spawn.ts";
import { runCli } from "../kit/node.ts";
import { fromSources, product } from "../kit/product.ts";
import { inScratch, World } from "../kit/world.ts";

const executable = async (): Promise<string> => (await product())[0] ?? "";

test("the sources run as they are, without being compiled", async () => {
  await using world = await World.start({ node: { command: fromSources } });
  const image = await world.build("team/app:1");
  expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
});

test("the executable does the main job from an empty folder, with nothing of the sources beside it", async () => {
  await inScratch(async (dir) => {
    const command = [join(dir, "oci-node")];
    await copyFile(await executable(), join(dir, "oci-node"));
    const world = await World.start({ node: { command } });
    try {
      const image = await world.build("team/app:1");
      expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
      expect((await world.node.cli(["run", image.id, "--", "exit-with", "3"])).code).toBe(3);
      expect((await world.node.cli(["doctor"])).code).toBe(0);
    } finally {
      await world.stop();
    }
  });
});

test("a node whose file another version has taken the place of goes on as what it is", async () => {
  await inScratch(async (dir) => {
    const [path, real] = [join(dir, "oci-node"), await executable()];
    await copyFile(real, path);
    const world = await World.start({ node: { command: [path] } });
    try {
      // Commands go on to the same version; processes that a node starts for itself would end at once.
      const other = `#!/bin/sh\n[ "$1" = internal ] && exit 9\nexec ${real} "$@"\n`;
      await writeFile(join(dir, "new"), other, { mode: 0o755 });
      await rename(join(dir, "new"), path);
      const image = await world.build("team/app:1");
      expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
    } finally {
      await world.stop();
    }
  });
});

test("the executable mounts an image without a server", async () => {
  await inScratch(async (dir) => {
    const empty = join(dir, "empty");
    const target = join(dir, "tree");
    await mkdir(empty);
    await mkdir(target);
    const command = await product();
    const world = await World.start();
    try {
      const reference = await world.push("team/app:1");
      const places = [
        "--index-store",
        join(dir, "index"),
        "--cache-dir",
        join(dir, "cache"),
        "--insecure-registry",
        world.registry.host,
      ];
      const options = { cwd: empty, env: { ...world.env, HOME: dir, XDG_CONFIG_HOME: dir } };
      const mounted = await runCli(
        command,
        ["mount", reference, target, "--creds", "USERNAME,PASSWORD", ...places],
        options,
      );
      expect([mounted.code, mounted.stderr.includes("oci-node: ")]).toEqual([0, false]);
      expect(await readdir(target)).toContain("bin");
      expect((await runCli(command, ["umount", target], options)).code).toBe(0);
      expect(await readdir(empty)).toEqual([]);
    } finally {
      await world.stop();
    }
  });
});

test("a .env file or a bunfig.toml in the working folder changes nothing", async () => {
  await inScratch(async (dir) => {
    await writeFile(join(dir, ".env"), "OCI_NODE_URL=http://127.0.0.1:1\nOCI_NODE_TOKEN=x\n");
    await writeFile(join(dir, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
    await writeFile(join(dir, "evil.ts"), 'console.log("preloaded");\n');
    const result = await runCli(await product(), ["ps"], {
      cwd: dir,
      env: { HOME: dir, XDG_CONFIG_HOME: dir },
    });
    expect(result.stdout).toBe("");
    expect(result.stderr).toContain("oci-node dev");
  });
});

test("the executable needs nothing but libc of its machine", async () => {
  const { stdout } = await tryRun(["ldd", await executable()]);
  const libraries = stdout
    .split("\n")
    .map((line) => line.trim().split(" ")[0] ?? "")
    .filter((name) => name !== "");
  const libc = /^(linux-vdso|libc\.|libm\.|libpthread\.|libdl\.|librt\.|\/lib64\/ld-linux)/;
  expect(libraries.filter((name) => !libc.test(name))).toEqual([]);
});

test("the executable says of a command line that it cannot read what the sources say", async () => {
  const { code, stderr } = await runCli(await product(), ["logs", "--tail", "x", "web"]);
  expect(code).toBe(2);
  expect(stderr).toBe(
    'oci-node: --tail: "x" is no number of lines\n  See `oci-node --help`, or --help of the command.\n',
  );
});
