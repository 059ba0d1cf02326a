import { afterEach, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { run } from "../std/spawn.ts";
import type { LayerBlob } from "./blob.ts";
import { Engine } from "./engine.ts";
import { FuseBlobServer } from "./fuse.ts";
import {
  Bench,
  blobOf,
  fetched,
  gzipMembersLayer,
  patterned,
  plainLayer,
  serveMisses,
  type TestLayer,
  zstdFramesLayer,
} from "./layer.test-kit.ts";
import { readMounts } from "./mountinfo.ts";

const engine = Engine.get();
const layer = plainLayer(patterned(1_000_000), 65_536);

/** A served layer; misses wait in `asked` until the test answers them, or are answered at once by `serveMisses`. */
class Mounted implements AsyncDisposable {
  readonly bench = new Bench();
  readonly blobs: LayerBlob[];
  readonly server: FuseBlobServer;

  constructor(layers: readonly TestLayer[] = [layer], readDeadlineMs = 20_000) {
    this.blobs = layers.map((one, i) => this.bench.open(one, `layer${i}`));
    const mountpoint = this.bench.folder("mount");
    this.server = FuseBlobServer.mount({ mountpoint, blobs: this.blobs, readDeadlineMs });
  }

  file(index = 0): string {
    return this.server.devicePath(index);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.unmount();
    await Promise.all(this.blobs.map((blob) => blob.release()));
    this.bench[Symbol.dispose]();
  }
}

/** Collects misses instead of answering them; `next` waits for the coming one. */
function holdMisses(): { asked: number[]; next: () => Promise<number> } {
  const asked: number[] = [];
  let wake: () => void = () => {};
  let seen = 0;
  engine.onMiss((_, span) => {
    asked.push(span);
    wake();
  });
  const next = async (): Promise<number> => {
    while (asked.length <= seen) await new Promise<void>((resolve) => (wake = resolve));
    return asked[seen++]!;
  };
  return { asked, next };
}

async function readAt(path: string, offset: number, length: number): Promise<Buffer> {
  const file = await open(path);
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

afterEach(() => engine.onMiss((blob, span) => engine.fail(blob, span)));

test("serves layers as numbered files and fetches what is read", async () => {
  const layers = [
    layer,
    gzipMembersLayer(patterned(300_000, 5), 65_536),
    zstdFramesLayer(patterned(300_000, 6), 65_536),
  ];
  await using mounted = new Mounted(layers);
  serveMisses(new Map(mounted.blobs.map((blob, i) => [blob, layers[i]!])));
  expect(readdirSync(mounted.server.mountpoint)).toEqual(["0", "1", "2"]);
  for (const [i, one] of layers.entries()) {
    expect((await stat(mounted.file(i))).size).toBe(one.blobSize);
    expect((await readFile(mounted.file(i))).equals(blobOf(one))).toBe(true);
  }
  expect(mounted.blobs.every((blob) => blob.complete)).toBe(true);
});

test("asks only for the spans of the range that is read", async () => {
  await using mounted = new Mounted();
  const asked = serveMisses(new Map([[mounted.blobs[0]!, layer]]));
  // A direct read: the kernel's read-ahead stays out of it.
  const argv = [
    "dd",
    `if=${mounted.file()}`,
    "bs=4096",
    "skip=122",
    "count=1",
    "iflag=direct",
    "status=none",
  ];
  const child = Bun.spawn(argv, { stdout: "pipe" });
  const got = Buffer.from(await new Response(child.stdout).arrayBuffer());
  expect(got.equals(layer.tar.subarray(499_712, 503_808))).toBe(true);
  expect(asked).toEqual([7]);
});

test("a hole is zeros without a fetch", async () => {
  const sparse: TestLayer = {
    ...layer,
    blobSize: 8 << 20,
    extents: [{ tarOffset: 0, blobOffset: 7 << 20, length: 1_000_000 }],
    spans: layer.spans.map((span) => ({ ...span, blobOffset: (7 << 20) + span.tarOffset })),
  };
  await using mounted = new Mounted([sparse]);
  const { asked } = holdMisses();
  expect((await readAt(mounted.file(), 0, 65_536)).every((byte) => byte === 0)).toBe(true);
  expect(asked).toEqual([]);
});

test("mmap-ed pages come from the layer", async () => {
  await using mounted = new Mounted();
  serveMisses(new Map([[mounted.blobs[0]!, layer]]));
  // git maps what it hashes.
  const { stdout } = await run(["git", "hash-object", "--no-filters", mounted.file()]);
  const blob = blobOf(layer);
  const expected = createHash("sha1").update(`blob ${blob.length}\0`).update(blob).digest("hex");
  expect(stdout.trim()).toBe(expected);
});

test("64 readers of one missing span cause one fetch", async () => {
  await using mounted = new Mounted();
  const misses = holdMisses();
  const reads = Array.from({ length: 64 }, () => readAt(mounted.file(), 200_000, 1000));
  const span = await misses.next();
  await engine.fill(mounted.blobs[0]!, span, span, fetched(layer, span));
  // The kernel may read ahead into neighbours; those are answered as they are asked for.
  engine.onMiss((blob, other) => void engine.fill(blob, other, other, fetched(layer, other)));
  for (const other of misses.asked)
    if (other !== span) await engine.fill(mounted.blobs[0]!, other, other, fetched(layer, other));
  for (const got of await Promise.all(reads))
    expect(got.equals(layer.tar.subarray(200_000, 201_000))).toBe(true);
  expect(misses.asked.filter((one) => one === span)).toEqual([span]);
});

test("wrong bytes leave the reader waiting until right ones come", async () => {
  await using mounted = new Mounted();
  const misses = holdMisses();
  const read = readAt(mounted.file(), layer.blobSize - 4096, 1000);
  const span = await misses.next();
  const wrong = fetched(layer, span);
  wrong[0]! ^= 1;
  expect(await engine.fill(mounted.blobs[0]!, span, span, wrong)).toEqual([
    { span, status: "digest_mismatch" },
  ]);
  expect(mounted.server.stats().waiting).toBe(1);
  await engine.fill(mounted.blobs[0]!, span, span, fetched(layer, span));
  const at = layer.blobSize - 4096;
  expect((await read).equals(blobOf(layer).subarray(at, at + 1000))).toBe(true);
});

test("after wrong bytes the reader gets the error that JavaScript gives, and a later fetch heals it", async () => {
  await using mounted = new Mounted();
  engine.onMiss((blob, span) => {
    const bytes = fetched(layer, span);
    bytes[0]! ^= 1;
    void engine.fill(blob, span, span, bytes).then(() => engine.fail(blob, span));
  });
  await expect(readAt(mounted.file(), 0, 1000)).rejects.toThrow("EIO");
  serveMisses(new Map([[mounted.blobs[0]!, layer]]));
  const got = await readAt(mounted.file(), 0, 1000);
  expect(got.equals(layer.tar.subarray(0, 1000))).toBe(true);
});

test("a failed fetch is EIO, and the next read asks again", async () => {
  await using mounted = new Mounted();
  const asked: number[] = [];
  engine.onMiss((blob, span) => {
    asked.push(span);
    engine.fail(blob, span, "EIO");
  });
  const size = layer.blobSize - 4096;
  for (let i = 0; i < 2; i++) await expect(readAt(mounted.file(), size, 100)).rejects.toThrow("EIO");
  expect(asked.filter((span) => span === 15).length).toBeGreaterThanOrEqual(2);
});

test("a read that nobody answers ends with EIO at its deadline, and is not waited for twice", async () => {
  await using mounted = new Mounted([layer], 1_000);
  const misses = holdMisses();
  const started = performance.now();
  const read = readAt(mounted.file(), 0, 100);
  read.catch(() => {});
  await misses.next();
  await expect(read).rejects.toThrow("EIO");
  // The kernel reads ahead, fails, and asks again for the one page: that must not take as long once more.
  expect(performance.now() - started).toBeLessThan(1_900);
});

test("a deadline moves on with the bytes of the layer that arrive, and not without them", async () => {
  await using mounted = new Mounted([layer], 250);
  const misses = holdMisses();
  const started = performance.now();
  const read = readAt(mounted.file(), 0, 100);
  read.catch(() => {});
  await misses.next();
  const arriving = setInterval(() => {
    engine.progress(mounted.blobs[0]!, 8 * 1024 * 1024);
    if (performance.now() - started > 800) clearInterval(arriving);
  }, 50);
  await expect(read).rejects.toThrow("EIO");
  const took = performance.now() - started;
  expect(took).toBeGreaterThan(1000);
  expect(took).toBeLessThan(3000);
});

test("a reader that is killed while it waits ends at once", async () => {
  await using mounted = new Mounted();
  const misses = holdMisses();
  const reader = Bun.spawn(["cat", mounted.file()], { stdout: "ignore", stderr: "ignore" });
  await misses.next();
  reader.kill("SIGKILL");
  await reader.exited;
  expect(reader.signalCode).toBe("SIGKILL");
});

test("the kernel's word about a killed reader gives its request back", async () => {
  await using mounted = new Mounted();
  const before = new Set<number>();
  let held: () => void = () => {};
  const holding = new Promise<void>((resolve) => (held = resolve));
  // The first request is read-ahead, which nobody waits for by name; after its failure the reader asks itself.
  engine.onMiss((blob, span) => {
    if (before.has(span)) held();
    else engine.fail(blob, span);
    before.add(span);
  });
  const reader = Bun.spawn(["cat", mounted.file()], { stdout: "ignore", stderr: "ignore" });
  await holding;
  reader.kill("SIGKILL");
  await reader.exited;
  // A request counts until its answer is written, which is what lets the reader go: it may be gone a moment earlier.
  const deadline = performance.now() + 5_000;
  while (mounted.server.stats().waiting > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(mounted.server.stats().waiting).toBe(0);
});

test("a read of one mount is not failed by another mount's trouble with the same layer", async () => {
  await using mounted = new Mounted();
  const good = mounted.bench.open(layer, "layer0");
  const mountpoint = mounted.bench.folder("second");
  const second = FuseBlobServer.mount({ mountpoint, blobs: [good], readDeadlineMs: 20_000 });
  const bad = mounted.blobs[0]!;
  const held: number[] = [];
  let badAsked: () => void = () => {};
  const asked = new Promise<void>((resolve) => (badAsked = resolve));
  engine.onMiss((blob, span) => {
    if (blob === bad) held.push(span);
    badAsked();
  });
  const denied = readAt(mounted.file(), 0, 100);
  denied.catch(() => {});
  await asked;
  const served = readAt(second.devicePath(0), 0, 100);
  while (second.stats().waiting === 0) await new Promise((turn) => setImmediate(turn));
  engine.onMiss((blob, span) => {
    if (blob === good) void engine.fill(blob, span, span, fetched(layer, span));
    else engine.fail(blob, span, "EACCES");
  });
  for (const span of held) engine.fail(bad, span, "EACCES");
  expect((await served).equals(layer.tar.subarray(0, 100))).toBe(true);
  await denied.catch(() => {}); // fails, or is served by what the other mount got meanwhile
  await second.unmount();
  await good.release();
});

test("draining fails the reads that wait, so that unmounting does not hang", async () => {
  await using mounted = new Mounted();
  const misses = holdMisses();
  const reader = Bun.spawn(["cat", mounted.file()], { stdout: "ignore", stderr: "ignore" });
  await misses.next();
  mounted.server.drain();
  expect(await reader.exited).toBe(1);
});

test("unmount of a mount in use is EBUSY, leaves it serving, and works later", async () => {
  await using mounted = new Mounted();
  serveMisses(new Map([[mounted.blobs[0]!, layer]]));
  const file = await open(mounted.file());
  await expect(mounted.server.unmount()).rejects.toThrow("EBUSY");
  const { buffer } = await file.read(Buffer.alloc(100), 0, 100, 300_000);
  expect(buffer.equals(layer.tar.subarray(300_000, 300_100))).toBe(true);
  await file.close();
});

test("abort fails waiting reads and those to come", async () => {
  await using mounted = new Mounted();
  const misses = holdMisses();
  const read = readAt(mounted.file(), 0, 100);
  read.catch(() => {});
  await misses.next();
  await mounted.server.abort();
  await expect(read).rejects.toThrow();
  await expect(readAt(mounted.file(), 0, 100)).rejects.toThrow();
  expect(existsSync(`/sys/fs/fuse/connections/${mounted.server.connectionMinor}/abort`)).toBe(true);
});

test("unmount is idempotent and takes an externally unmounted mount for done", async () => {
  const mounted = new Mounted();
  await run(["umount", mounted.server.mountpoint]);
  await Promise.all([mounted.server.unmount(), mounted.server.unmount()]);
  await mounted.server.unmount();
  expect((await readMounts()).some((mount) => mount.mountpoint === mounted.server.mountpoint)).toBe(false);
  await mounted[Symbol.asyncDispose]();
});

test("a full disk does not keep readers from their bytes", async () => {
  const bench = new Bench();
  const small = bench.folder("small");
  await run(["mount", "-t", "tmpfs", "-o", "size=128k", "oci-node-test", small]);
  try {
    const blob = bench.open(layer, "small/layer");
    const server = FuseBlobServer.mount({
      mountpoint: bench.folder("mount"),
      blobs: [blob],
      readDeadlineMs: 20_000,
    });
    const statuses = new Set<string>();
    engine.onMiss(async (from, span) => {
      for (const result of await engine.fill(from, span, span, fetched(layer, span)))
        statuses.add(result.status);
    });
    expect((await readFile(server.devicePath(0))).equals(blobOf(layer))).toBe(true);
    expect(statuses.has("no_space")).toBe(true);
    expect(blob.complete).toBe(false);
    await server.unmount();
    await blob.release();
  } finally {
    await run(["umount", small]);
    bench[Symbol.dispose]();
  }
});

test("read-ahead of the mount is 128 KiB", async () => {
  await using mounted = new Mounted();
  const path = `/sys/class/bdi/0:${mounted.server.connectionMinor}/read_ahead_kb`;
  expect(readFileSync(path, "utf8").trim()).toBe("128");
});

test("a process that is killed while it reads its own mount goes away", async () => {
  using bench = new Bench();
  await bench.open(layer).release();
  const mountpoint = bench.folder("mount");
  const from = (file: string): string => JSON.stringify(import.meta.resolve(file));
  // The second request for a span is one that the reader waits for unkillably: the first one was read-ahead.
  const script = `import { LayerBlob } from ${from("./blob.ts")}; import { Engine } from ${from("./engine.ts")};
    import { FuseBlobServer } from ${from("./fuse.ts")}; import { readFile } from "node:fs/promises";
    const blob = LayerBlob.open(${JSON.stringify(bench.paths("layer"))});
    const server = FuseBlobServer.mount({ mountpoint: ${JSON.stringify(mountpoint)}, blobs: [blob] });
    const before = new Set();
    Engine.get().onMiss((blob, span) => {
      if (before.has(span)) console.log("waits");
      else Engine.get().fail(blob, span);
      before.add(span);
    });
    await readFile(server.devicePath(0));`;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  const { value } = await child.stdout.getReader().read();
  expect(Buffer.from(value!).toString()).toStartWith("waits\n");
  child.kill("SIGKILL");
  await child.exited;
  await run(["umount", mountpoint]);
});

test("a process with a mount and a waiting read can exit, and one without ends by itself", async () => {
  using bench = new Bench();
  await bench.open(layer).release();
  const mountpoint = bench.folder("mount");
  const prelude = `import { LayerBlob } from ${JSON.stringify(import.meta.resolve("./blob.ts"))};
    import { FuseBlobServer } from ${JSON.stringify(import.meta.resolve("./fuse.ts"))};
    import { Engine } from ${JSON.stringify(import.meta.resolve("./engine.ts"))};
    import { readFile } from "node:fs/promises";
    const blob = LayerBlob.open(${JSON.stringify(bench.paths("layer"))});
    const server = FuseBlobServer.mount({ mountpoint: ${JSON.stringify(mountpoint)}, blobs: [blob] });`;
  try {
    const exits = `${prelude} Engine.get().onMiss(() => process.exit(7)); await readFile(server.devicePath(0));`;
    const child = Bun.spawn([process.execPath, "-e", exits], { stdout: "ignore", stderr: "inherit" });
    expect(await child.exited).toBe(7);
    await run(["umount", mountpoint]);
    const ends = `${prelude} await server.unmount(); await blob.release(); console.log("done");`;
    expect((await run([process.execPath, "-e", ends], { timeoutMs: 10_000 })).stdout).toBe("done\n");
  } finally {
    for (const mount of await readMounts())
      if (mount.mountpoint === mountpoint) await run(["umount", mountpoint]);
  }
});
