import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { defaultOptions } from "../../container/options.ts";
import { TestHost, textOf } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import { layerLimit, layerProblem } from "./writable-layer.ts";

const mebibyte = 1024 * 1024;
let host: TestHost;
let runtime: Runtime;
const signal = new AbortController().signal;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime({ storageLimitBytes: 64 * mebibyte });
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  expect(await loopDevices()).toEqual([]);
  await host.close();
});

/** Files of ours that loop devices are attached to. */
async function loopDevices(): Promise<string[]> {
  const names = (await readdir("/sys/block")).filter((name) => name.startsWith("loop"));
  const files = names.map((name) => readFile(`/sys/block/${name}/loop/backing_file`, "utf8").catch(() => ""));
  return (await Promise.all(files)).filter((file) => file.includes(host.directory));
}

const writing = (script: string, storageBytes = 0) =>
  host.spec(["sh", "-c", script], { options: { ...defaultOptions, storageBytes } });

/** Writes until it cannot, and says how many MiB there was room for. */
const fillUp =
  "i=0; while dd if=/dev/zero of=/f$i bs=1048576 count=1 2>/dev/null; do i=$((i+1)); done; echo $i";

test("a container that fills its layer is told so, and so is whoever looks why it ended; another goes on", async () => {
  const other = await runtime.start(
    writing("until [ -e /go ]; do :; done; echo x > /y && echo fine"),
    signal,
  );
  const full = await runtime.start(writing(`${fillUp}; cat /bin/busybox > /more || exit 7`), signal);
  try {
    expect((await full.exited).exitCode).toBe(7);
    const room = Number((await textOf(runtime.logs(full.id), "stdout")).trim());
    expect(room).toBeGreaterThan(48);
    expect(room).toBeLessThan(64);
    expect(await textOf(runtime.logs(full.id), "stderr")).toContain("No space left on device");
    expect(await full.full(7)).toBe("its writable layer is full (64.0 MiB)");
    expect(await other.full(7)).toBeUndefined();
    await Bun.write(join(host.rootOf(other.id), "go"), "");
    expect((await other.exited).exitCode).toBe(0);
  } finally {
    for (const container of [full, other]) {
      await container.cleanup();
      await container.removeLog();
    }
  }
});

test("what it writes to its own /etc/hosts counts as well", async () => {
  const fill = "dd if=/dev/zero of=/etc/hosts bs=1048576 count=100 2>/dev/null; stat -c %s /etc/hosts";
  const { output } = await host.runToEnd(runtime, writing(fill));
  expect(Number(output)).toBeGreaterThan(40 * mebibyte);
  expect(Number(output)).toBeLessThan(64 * mebibyte);
});

test("asks for less and gets that, for more and gets what the operator allows", async () => {
  expect(layerLimit(0, 0)).toBe(0);
  expect(layerLimit(5, 0)).toBe(5);
  expect(layerLimit(0, 7)).toBe(7);
  expect(layerLimit(5, 7)).toBe(5);
  expect(layerLimit(9, 7)).toBe(7);
  const { output: less } = await host.runToEnd(runtime, writing(fillUp, 32 * mebibyte));
  expect(Number(less)).toBeLessThan(32);
  expect(Number(less)).toBeGreaterThan(20);
});

test("takes of the host's disk only what is written, and is gone with the container, written or not", async () => {
  const limitBytes = 2048 * mebibyte;
  const big = await host.runtime({ storageLimitBytes: limitBytes });
  const spec = writing(
    "dd if=/dev/zero of=/big bs=1048576 count=200 2>/dev/null; echo done; exec sleep 1000",
  );
  const container = await big.start(spec, signal);
  const file = join(host.stateDir, "containers", spec.id, "layer.ext4");
  try {
    for await (const _ of big.logs(spec.id, { follow: true })) break;
    expect((await stat(file)).size).toBe(limitBytes);
    expect((await stat(file)).blocks * 512).toBeLessThan(230 * mebibyte);
  } finally {
    await container.cleanup();
    await container.removeLog();
  }
  expect(await stat(file).catch(() => "gone")).toBe("gone");
});

test("a file system that is whole: links, owners, extended attributes, and nothing of ext4's own", async () => {
  const { output } = await host.runToEnd(
    runtime,
    writing(
      "ls -A /; cp /bin/busybox /b; ln /b /c; stat -c '%h %u' /c; cd /tmp; i=0; while [ $i -lt 400 ]; do mkdir dddddddddddddddddddd; cd dddddddddddddddddddd; i=$((i+1)); done; echo deep",
    ),
  );
  expect(output).not.toContain("lost+found");
  expect(output).toEndWith("2 0\ndeep\n");
});

test("a worker that comes after removes it as well", async () => {
  const spec = writing("exec sleep 1000");
  await runtime.start(spec, signal);
  const next = await host.runtime();
  const [adopted] = (await next.adopt()).filter(({ id }) => id === spec.id);
  await adopted?.cleanup();
  await adopted?.removeLog();
  expect(await readdir(join(host.stateDir, "containers"))).toEqual([]);
});

test("where a layer cannot be limited, what was asked for is refused and the rest goes on without", async () => {
  const unable = await host.runtime({ storageLimitBytes: 64 * mebibyte, mkfs: "no-such-mkfs" });
  expect((await host.runToEnd(unable, writing("touch /x && echo made"))).output).toBe("made\n");
  const failure = await unable.start(writing("true", 32 * mebibyte), signal).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "overlay_failed" });
  expect(failure).toHaveProperty(
    "message",
    "the writable layer could not be limited: no-such-mkfs: the program could not be started",
  );
  expect(await layerProblem(host.directory, "no-such-mkfs")).toContain("no-such-mkfs");
  expect(await layerProblem(host.directory)).toBeUndefined();
});
