import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { defaultOptions, type VolumeMount } from "../../container/options.ts";
import { imageConfig, TestHost } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import type { ContainerSpec } from "../spec.ts";
import { removeTree } from "./remove-tree.ts";

let host: TestHost;
let runtime: Runtime;
/** Directories of the host: `open` is allowed, `look` to be read alone, `closed` not at all. */
let shared: string;
const signal = new AbortController().signal;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
  shared = join(host.directory, "shared");
  for (const name of ["open/deep", "look", "closed", "opener"])
    await mkdir(join(shared, name), { recursive: true });
  await writeFile(join(shared, "closed/secret"), "s\n");
  await writeFile(join(shared, "look/book"), "words\n");
  await mkdir(join(host.imageRoot, "var/lib/db"), { recursive: true });
  await writeFile(join(host.imageRoot, "var/lib/db/seed"), "grown\n");
  await symlink("/home/ann", join(host.imageRoot, "var/lib/db/link"));
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  await host.close();
});

const volume = (source: string, target: string, readOnly = false): VolumeMount => ({
  source,
  target,
  readOnly,
});

const spec = (script: string, volumes: readonly VolumeMount[], more: Partial<ContainerSpec> = {}) =>
  host.spec(["sh", "-c", script], {
    options: { ...defaultOptions, volumes },
    hostPaths: [join(shared, "open"), `${shared}/look:ro`],
    ...more,
  });

const output = async (...of: Parameters<typeof spec>): Promise<string> =>
  (await host.runToEnd(runtime, spec(...of))).output;

const failureOf = (volumes: readonly VolumeMount[], more: Partial<ContainerSpec> = {}): Promise<unknown> =>
  runtime.start(spec("true", volumes, more), signal).catch((error: unknown) => error);

describe("a volume with a name", () => {
  const db = volume("db", "/var/lib/db");

  test("begins with what the image has there, and keeps what containers write, whatever ids they have", async () => {
    const first = await output(
      "cat /var/lib/db/seed; readlink /var/lib/db/link; rm /var/lib/db/seed; echo mine > /var/lib/db/own; chown ann /var/lib/db/own",
      [db],
    );
    expect(first).toBe("grown\n/home/ann\n");
    const second = await output("ls /srv/db; cat /srv/db/own; stat -c %U /srv/db/own", [
      volume("db", "/srv/db"),
    ]);
    expect(second).toBe("link\nown\nmine\nann\n");
    const off = await host.runtime({ userNamespaces: "off" });
    const { output: third } = await host.runToEnd(off, spec("stat -c '%U %u' /d/own", [volume("db", "/d")]));
    expect(third).toBe("ann 1001\n");
    expect((await stat(join(host.stateDir, "volumes/w/db/own"))).uid).toBe(1001);
  });

  test("is its workspace's own, and others of the name are others", async () => {
    await output("echo of w > /d/x", [volume("same", "/d")]);
    expect(await output("ls -A /d", [volume("same", "/d")], { workspaceId: "w2" })).toBe("");
    expect(await output("cat /d/x", [volume("same", "/d")])).toBe("of w\n");
  });

  test("is shared by those that use it at once, read alone where that is wanted, without setuid bits and devices", async () => {
    const writer = await runtime.start(
      spec("echo here > /d/x; exec sleep 1000", [volume("shared", "/d")]),
      signal,
    );
    try {
      const seen = await output(
        `until [ -s /r/x ]; do :; done; cat /r/x; touch /r/y 2>/dev/null || echo closed
         grep ' /r ' /proc/mounts | grep -o ' ro,nosuid,nodev'`,
        [volume("shared", "/r", true)],
      );
      expect(seen).toBe("here\nclosed\n ro,nosuid,nodev\n");
      const failure = await runtime
        .removeVolume({ workspaceId: "w", name: "shared" })
        .catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: "volume", message: `container ${writer.id} uses volume shared` });
      // A worker that comes after knows who uses what.
      const next = await host.runtime();
      await next.adopt();
      expect(next.removeVolume({ workspaceId: "w", name: "shared" })).rejects.toThrow("uses volume shared");
    } finally {
      await writer.cleanup();
      await writer.removeLog();
    }
    await runtime.removeVolume({ workspaceId: "w", name: "shared" });
    await runtime.removeVolume({ workspaceId: "w", name: "shared" });
    expect(await readdir(join(host.stateDir, "volumes/w"))).not.toContain("shared");
  });

  test("is filled once, however many begin with it, and not at all by a start that fails", async () => {
    const both = await Promise.all(
      [1, 2].map(() => output("cat /d/../var/lib/db/seed; ls /d", [volume("twice", "/d"), db])),
    );
    expect(both.length).toBe(2);
    expect(await failureOf([volume("torn", "/bin/busybox")])).toMatchObject({ code: "bad_config" });
    expect(await readdir(join(host.stateDir, "volumes/w"))).not.toContain("torn");
    expect((await readdir(join(host.stateDir, "volumes"))).filter((name) => name.startsWith("."))).toEqual(
      [],
    );
  });

  test("cannot be named so that it is elsewhere", async () => {
    for (const name of ["..", ".", "a/b", ".hidden", "", "a\0b"])
      expect(await failureOf([volume(name, "/d")])).toMatchObject({ code: "volume" });
    expect(await failureOf([db], { workspaceId: "../w" })).toMatchObject({ code: "volume" });
  });
});

describe("a path of the host", () => {
  test("is shown as the operator allows it: its root is the container's root", async () => {
    const seen = await output(
      `id -u; echo x > /data/made; stat -c %u:%g /data/made; cat /look/book
       touch /look/x 2>/dev/null || echo closed`,
      [volume(join(shared, "open/deep"), "/data"), volume(join(shared, "look"), "/look", true)],
    );
    expect(seen).toBe("0\n0:0\nwords\nclosed\n");
    const made = await stat(join(shared, "open/deep/made"));
    expect([made.uid, made.gid]).toEqual([0, 0]);
  });

  test("may be one file", async () => {
    const file = join(shared, "open/file");
    await writeFile(file, "before\n");
    expect(
      await output("cat /etc/own.conf; echo after > /etc/own.conf", [volume(file, "/etc/own.conf")]),
    ).toBe("before\n");
    expect(await readFile(file, "utf8")).toBe("after\n");
  });

  test("is refused where the operator did not allow it, however it is written", async () => {
    await symlink(join(shared, "closed"), join(shared, "open/way-out"));
    await symlink(join(shared, "look"), join(shared, "open/way-to-look"));
    for (const source of [
      join(shared, "closed"),
      join(shared, "opener"),
      shared,
      `${shared}/open/../closed`,
      join(shared, "open/way-out"),
      join(shared, "open/way-out/secret"),
      "/",
      "/proc/self/root",
    ]) {
      expect(await failureOf([volume(source, "/d")])).toMatchObject({
        code: "volume",
        message: expect.stringContaining("operator does not allow the workspace"),
      });
    }
    for (const source of ["look", "open/way-to-look"])
      expect(await failureOf([volume(join(shared, source), "/d")])).toMatchObject({ code: "volume" });
    expect(await output("cat /d/book", [volume(join(shared, "open/way-to-look"), "/d", true)])).toBe(
      "words\n",
    );
    expect(
      await failureOf([volume(join(shared, "open/deep"), "/d")], { hostPaths: undefined }),
    ).toMatchObject({
      next: "It may have nothing: see host_paths of the worker's own configuration.",
    });
  });

  test("that is not there is not made", async () => {
    expect(await failureOf([volume(join(shared, "open/none"), "/d")])).toMatchObject({
      code: "volume",
      message: expect.stringContaining("is not there"),
    });
    expect(await readdir(join(shared, "open"))).not.toContain("none");
  });
});

test("shows volumes to a user of the image's as they are", async () => {
  const { output: seen } = await host.runToEnd(
    runtime,
    spec(
      "touch /d/x 2>/dev/null || echo closed; touch /home/ann/y && stat -c %U /home/ann/y",
      [volume("roots", "/d"), volume("anns", "/home/ann")],
      { imageConfig: imageConfig({ User: "ann" }) },
    ),
  );
  // As with Docker: a new volume has the owner of the image's directory, and is root's where the image has none.
  expect(seen).toBe("closed\n");
});

test("removes trees whose paths are longer than Linux takes", async () => {
  await output(
    "cd /d; i=0; while [ $i -lt 400 ]; do mkdir dddddddddddddddddddd; cd dddddddddddddddddddd; i=$((i+1)); done",
    [volume("deep", "/d")],
  );
  await runtime.removeVolume({ workspaceId: "w", name: "deep" });
  expect(await readdir(join(host.stateDir, "volumes"))).not.toContain("deep");
  await removeTree(join(host.directory, "nothing"));
  await rm(join(shared, "open"), { recursive: true });
});
