import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../std/spawn.ts";
import type { LayerBlob } from "./blob.ts";
import { Engine } from "./engine.ts";
import { FuseBlobServer } from "./fuse.ts";
import { Bench, patterned, plainLayer, serveMisses, type TestLayer } from "./layer.test-kit.ts";
import { erofsMount, loopAttach, loopDetach, overlayMount, umount } from "./linux.ts";
import { listLoops, parseMountinfo, readMounts } from "./mountinfo.ts";

const content = patterned(300_000, 3);
let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});

afterEach(async () => {
  Engine.get().onMiss((blob, span) => Engine.get().fail(blob, span));
  const left = (await readMounts()).filter((mount) => mount.mountpoint.startsWith(bench.dir));
  for (const mount of left.reverse()) await umount(mount.mountpoint, { detach: true });
  bench[Symbol.dispose]();
  expect(left).toEqual([]);
});

/** An EROFS image of one tree, its data on an extra device, and that device as a layer. */
async function makeErofs(): Promise<{ image: string; layer: TestLayer }> {
  const tree = bench.folder("tree");
  mkdirSync(join(tree, "bin"));
  writeFileSync(join(tree, "bin/tool"), content);
  writeFileSync(join(tree, "note"), "a small file\n".repeat(400));
  const image = bench.path("image.erofs");
  await run(["mkfs.erofs", "--chunksize=4096", `--blobdev=${bench.path("data")}`, image, tree]);
  const data = readFileSync(bench.path("data"));
  return { image, layer: plainLayer(data, 65_536) };
}

async function serve(layer: TestLayer): Promise<{ blob: LayerBlob; server: FuseBlobServer }> {
  const blob = bench.open(layer);
  serveMisses(new Map([[blob, layer]]));
  return { blob, server: FuseBlobServer.mount({ mountpoint: bench.folder("fuse"), blobs: [blob] }) };
}

async function expectTree(root: string): Promise<void> {
  expect((await readFile(join(root, "bin/tool"))).equals(content)).toBe(true);
  expect(await readFile(join(root, "note"), "utf8")).toBe("a small file\n".repeat(400));
}

test("EROFS reads its data through the FUSE file, fetched as it is read", async () => {
  const { image, layer } = await makeErofs();
  const { blob, server } = await serve(layer);
  const target = bench.folder("root");
  await erofsMount({ source: image, devices: [server.devicePath(0)], target });
  expect(blob.presentCount()).toBe(0);
  await expectTree(target);
  expect(blob.presentCount()).toBeGreaterThan(0);
  await expect(server.unmount()).rejects.toThrow("EBUSY");
  await umount(target);
  await server.unmount();
  await blob.release();
});

test("EROFS reads its data through loop devices on the FUSE file", async () => {
  const { image, layer } = await makeErofs();
  const { blob, server } = await serve(layer);
  const target = bench.folder("root");
  const source = await loopAttach(image, { directIo: true, readOnly: true });
  const device = await loopAttach(server.devicePath(0), { directIo: true, readOnly: true });
  const files = new Map((await listLoops()).map((loop) => [loop.device, loop.backingFile]));
  expect([files.get(source.device), files.get(device.device)]).toEqual([image, server.devicePath(0)]);
  const queue = `/sys/block/${device.device.slice("/dev/".length)}/queue/read_ahead_kb`;
  expect(readFileSync(queue, "utf8").trim()).toBe("1024");
  await erofsMount({ source: source.device, devices: [device.device], target });
  // In use: gone by themselves when the mount is.
  await loopDetach(source.device);
  await loopDetach(device.device);
  await expectTree(target);
  await umount(target);
  await server.unmount();
  await blob.release();
  const left = (await listLoops()).filter((loop) => loop.backingFile.startsWith(bench.dir));
  expect(left).toEqual([]);
});

test("an EROFS unmount does not hang on a read that nobody answers once the server is drained", async () => {
  const { image, layer } = await makeErofs();
  const blob = bench.open(layer);
  const server = FuseBlobServer.mount({ mountpoint: bench.folder("fuse"), blobs: [blob] });
  const target = bench.folder("root");
  let asked: () => void = () => {};
  const missed = new Promise<void>((resolve) => (asked = resolve));
  Engine.get().onMiss(() => asked());
  await erofsMount({ source: image, devices: [server.devicePath(0)], target });
  const reader = Bun.spawn(["cat", join(target, "bin/tool")], { stdout: "ignore", stderr: "ignore" });
  await missed;
  reader.kill("SIGKILL");
  await reader.exited;
  server.drain();
  await umount(target);
  await server.unmount();
  await blob.release();
});

test("a process that is killed while its own unmount hangs goes away and takes its connection along", async () => {
  const { image, layer } = await makeErofs();
  await bench.open(layer).release();
  const [fuse, target] = [bench.folder("fuse"), bench.folder("root")];
  const from = (file: string): string => JSON.stringify(import.meta.resolve(file));
  const script = `import { LayerBlob } from ${from("./blob.ts")}; import { Engine } from ${from("./engine.ts")};
    import { FuseBlobServer } from ${from("./fuse.ts")};
    import { erofsMount, loopAttach, loopDetach, umount } from ${from("./linux.ts")};
    import { readdirSync, readFileSync } from "node:fs";
    const blob = LayerBlob.open(${JSON.stringify(bench.paths("layer"))});
    const server = FuseBlobServer.mount({ mountpoint: ${JSON.stringify(fuse)}, blobs: [blob] });
    const missed = new Promise((resolve) => Engine.get().onMiss(resolve));
    // By loop devices: their reads go on when the reader is dead.
    const loops = [];
    for (const file of [${JSON.stringify(image)}, server.devicePath(0)])
      loops.push((await loopAttach(file, { directIo: true, readOnly: true })).device);
    await erofsMount({ source: loops[0], devices: [loops[1]], target: ${JSON.stringify(target)} });
    for (const loop of loops) await loopDetach(loop);
    const reader = Bun.spawn(["cat", ${JSON.stringify(join(target, "bin/tool"))}], { stdout: "ignore", stderr: "ignore" });
    await missed;
    reader.kill("SIGKILL");
    await reader.exited;
    void umount(${JSON.stringify(target)});
    const stateOf = (task) => { try { return readFileSync("/proc/self/task/" + task + "/stat", "utf8"); } catch { return "gone"; } };
    const hangs = () => readdirSync("/proc/self/task").some((task) => stateOf(task).includes(") D "));
    while (!hangs()) await new Promise((turn) => setImmediate(turn));
    console.log("hangs");
    setInterval(() => {}, 1000);`;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  const { value } = await child.stdout.getReader().read();
  expect(Buffer.from(value!).toString()).toBe("hangs\n");
  child.kill("SIGKILL");
  await child.exited;
  expect((await readMounts()).some((mount) => mount.mountpoint === target)).toBe(false);
  await umount(fuse);
  expect((await listLoops()).filter((loop) => loop.backingFile.startsWith(bench.dir))).toEqual([]);
});

test("a failed EROFS mount says what the kernel said", async () => {
  writeFileSync(bench.path("bad"), Buffer.alloc(8192));
  const target = bench.folder("root");
  const failure = (source: string, flags: string[]): Promise<string> =>
    erofsMount({ source, devices: [], target, flags }).then(
      () => "mounted",
      (error: Error) => error.message,
    );
  expect(await failure(bench.path("bad"), [])).toContain("EINVAL");
  expect(await failure(bench.path("none"), [])).toContain("ENOENT");
  expect(await failure(bench.path("bad"), ["no-such-option"])).toMatch(/EINVAL.*Unknown parameter/);
});

test("paths of EROFS mounts may be longer than fsconfig takes", async () => {
  const { image, layer } = await makeErofs();
  const long = bench.folder(`${"d".repeat(150)}/${"e".repeat(150)}`);
  const source = join(long, "image.erofs");
  writeFileSync(source, readFileSync(image));
  writeFileSync(join(long, "data"), layer.tar);
  const target = bench.folder("root");
  await erofsMount({ source, devices: [join(long, "data")], target });
  await expectTree(target);
  await umount(target);
});

test("overlays take folders with commas and colons in their names", async () => {
  const [lower, upper, work, target] = ["a,b:c", "up,per", "wo,rk", "merged"].map((name) =>
    bench.folder(name),
  );
  writeFileSync(join(lower!, "file"), "below");
  await overlayMount({
    lower: [lower!],
    upper: upper!,
    work: work!,
    target: target!,
    options: { index: "off" },
  });
  expect(readFileSync(join(target!, "file"), "utf8")).toBe("below");
  writeFileSync(join(target!, "file"), "above");
  expect(readFileSync(join(upper!, "file"), "utf8")).toBe("above");
  await umount(target!);
  await umount(target!).catch((error) => expect(error.code).toBe("EINVAL"));
});

test("reads mountinfo with optional fields and escaped names", () => {
  const text =
    "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n44 27 0:41 / /x ro - fuse.oci-node oci-node ro\n";
  expect(parseMountinfo(text)).toEqual([
    {
      id: 36,
      parentId: 35,
      device: "98:0",
      root: "/mnt1",
      mountpoint: "/mnt 2",
      options: "rw,noatime",
      type: "ext3",
      source: "/dev/root",
      superOptions: "rw,errors=continue",
    },
    {
      id: 44,
      parentId: 27,
      device: "0:41",
      root: "/",
      mountpoint: "/x",
      options: "ro",
      type: "fuse.oci-node",
      source: "oci-node",
      superOptions: "ro",
    },
  ]);
});
