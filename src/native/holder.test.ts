import { afterEach, beforeEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { LayerBlob } from "./blob.ts";
import { Engine } from "./engine.ts";
import { FuseBlobServer } from "./fuse.ts";
import { HolderConnection } from "./holder.ts";
import { Bench, blobOf, encodeSpanFile, patterned, plainLayer, serveMisses } from "./layer.test-kit.ts";
import { umount } from "./linux.ts";
import { readMounts } from "./mountinfo.ts";
import { waitForExit } from "./process.ts";

const layer = plainLayer(patterned(1_000_000), 65_536);
const key = "k".repeat(32);
const engine = Engine.get();
let bench: Bench;

beforeEach(() => {
  bench = new Bench();
  bench.folder("mount");
  writeFileSync(bench.path("layer.spans"), encodeSpanFile(layer));
});

afterEach(async () => {
  engine.onMiss((blob, span) => engine.fail(blob, span));
  if (await mountOf(bench.path("mount"))) await umount(bench.path("mount"), { detach: true });
  const left = await HolderConnection.connect({ folder: bench.dir, patienceMs: 1 });
  for (const held of (await left?.list()) ?? []) await left?.drop(held);
  await left?.bye();
  bench[Symbol.dispose]();
});

test("reads that wait when their server is killed get their bytes from the next one", async () => {
  const first = await startServer(60_000);
  const early = read(200_000, 1000);
  await first.missed();
  await first.kill();
  const late = read(700_000, 1000);
  for (const waiting of [early, late]) expect(waiting.exitCode).toBeNull();
  const { server, blob, holder, asked } = await adopt();
  expect(await bytesOf(early)).toEqual(blobOf(layer).subarray(200_000, 201_000));
  expect(await bytesOf(late)).toEqual(blobOf(layer).subarray(700_000, 701_000));
  expect(asked).toContain(3);
  await server.unmount();
  await holder.drop(key);
  await holder.bye();
  await blob.release();
  await waitForExit(first.holderPid);
});

test("a holder without a worker lets reads fail after its patience, and ends", async () => {
  const first = await startServer(300);
  const waiting = read(200_000, 1000);
  await first.missed();
  await first.kill();
  expect(await waiting.exited).not.toBe(0);
  expect(await new Response(waiting.stderr).text()).toMatch(/error|endpoint|aborted/i);
  await waitForExit(first.holderPid);
  expect(await HolderConnection.connect({ folder: bench.dir, patienceMs: 300 })).toBeUndefined();
});

test("a connection that was cut is not taken over", async () => {
  const first = await startServer(60_000);
  await first.kill();
  const entry = await mountOf(bench.path("mount"));
  const minor = entry?.device.split(":")[1] ?? "";
  await Bun.write(`/sys/fs/fuse/connections/${minor}/abort`, "1");
  const holder = await connect();
  const blob = openBlob();
  expect(await tryAdopt(holder, blob)).toBeUndefined();
  await holder.bye();
  await blob.release();
});

test("one folder has one holder, which serves one process after the other and ends with nothing to hold", async () => {
  const options = { folder: bench.dir, patienceMs: 60_000 };
  const first = await HolderConnection.start(options);
  let second: HolderConnection | undefined;
  const waiting = HolderConnection.start(options).then((connection) => {
    second = connection;
  });
  expect(await first.list()).toEqual([]);
  expect(second).toBeUndefined();
  const server = FuseBlobServer.mount({ mountpoint: bench.path("mount"), blobs: [] });
  await server.hold(first, key);
  await server.hold(first, key);
  await first.bye();
  await waiting;
  expect(second?.pid).toBe(first.pid);
  expect(await second?.list()).toEqual([key]);
  expect(await server.hold(first, key).catch((error: unknown) => error)).toMatchObject({ code: "ENOTCONN" });
  await server.unmount();
  await second?.drop(key);
  await second?.drop(key);
  await second?.bye();
  await waitForExit(first.pid);
});

test("hundreds of connections are held and listed", async () => {
  const holder = await HolderConnection.start({ folder: bench.dir, patienceMs: 60_000 });
  const server = FuseBlobServer.mount({ mountpoint: bench.path("mount"), blobs: [] });
  const keys = Array.from({ length: 200 }, (_, index) => String(index).padStart(32, "0"));
  for (const one of keys) await server.hold(holder, one);
  expect((await holder.list()).sort()).toEqual(keys);
  for (const one of keys) await holder.drop(one);
  expect(await holder.list()).toEqual([]);
  await server.unmount();
  await holder.bye();
});

const magic = 0x4f434948;
const hello = [magic, 1, 1, 60_000];

test.each([
  ["a version that it does not know", [[magic, 2, 1, 0]], -93],
  ["half a message", [[magic, 1]], -74],
  ["something else's message", [[1, 1, 1, 0]], -74],
  ["a question before the greeting", [[magic, 1, 5, 0]], -74],
  ["a put without a descriptor", [hello, whole(2)], -22],
  ["a take of what is not there", [hello, whole(3)], -2],
  ["an operation that it does not know", [hello, whole(99)], -95],
] as const)("answers %s by an error, and goes on for others", async (_, messages, errno) => {
  const first = await HolderConnection.start({ folder: bench.dir, patienceMs: 60_000 });
  const server = FuseBlobServer.mount({ mountpoint: bench.path("mount"), blobs: [] });
  await server.hold(first, key);
  await first.bye();
  const replies = await say(messages);
  expect(replies.at(-1)).toMatchObject({ magic, version: 1, result: errno });
  const second = await connect();
  expect(second.pid).toBe(first.pid);
  expect(await second.list()).toEqual([key]);
  await server.unmount();
  await second.drop(key);
  await second.bye();
});

/** A request of full length, with an empty key and no INIT. */
function whole(operation: number): number[] {
  return [magic, 1, operation, 0, ...Array<number>(8 + 1 + 64).fill(0)];
}

/** Sends messages of 32-bit words on one connection, waiting for each reply, and gives the replies' heads. */
async function say(messages: readonly (readonly number[])[]) {
  const script = `use Socket; chdir $ARGV[0]; socket(my $s, AF_UNIX, 5, 0); connect($s, pack_sockaddr_un("holder.sock"))
    or die $!; shift; for (@ARGV) { send($s, pack("L*", split ","), 0); recv($s, my $r, 65536, 0);
    print join(",", unpack("L3 l", $r)), "\\n"; }`;
  const child = Bun.spawn(["perl", "-e", script, bench.dir, ...messages.map((words) => words.join(","))], {
    stderr: "inherit",
  });
  const lines = (await new Response(child.stdout).text()).trim().split("\n");
  return lines.map((line) => {
    const [first, version, operation, result] = line.split(",").map(Number);
    return { magic: first, version, operation, result };
  });
}

async function startServer(patienceMs: number) {
  const script = new URL("./serve-held.test-kit.ts", import.meta.url).pathname;
  const child = Bun.spawn([process.execPath, script, bench.dir, String(patienceMs)], { stderr: "inherit" });
  const lines = linesOf(child.stdout);
  const ready = await lines.next();
  return {
    holderPid: Number(String(ready.value).replace("ready ", "")),
    missed: async () => expect((await lines.next()).value).toStartWith("miss "),
    kill: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

async function connect(): Promise<HolderConnection> {
  const holder = await HolderConnection.connect({ folder: bench.dir, patienceMs: 60_000 });
  if (holder === undefined) throw new Error("there is no holder");
  return holder;
}

function openBlob(): LayerBlob {
  return LayerBlob.open(bench.paths("layer"));
}

async function tryAdopt(holder: HolderConnection, blob: LayerBlob): Promise<FuseBlobServer | undefined> {
  const mountpoint = bench.path("mount");
  const minor = Number((await mountOf(mountpoint))?.device.split(":")[1]);
  return FuseBlobServer.adopt({ mountpoint, blobs: [blob], holder, key, connectionMinor: minor });
}

async function adopt() {
  const holder = await connect();
  const blob = openBlob();
  // What waits is asked for again in the moment of the take-over: who answers must be there before.
  const asked = serveMisses(new Map([[blob, layer]]));
  const server = await tryAdopt(holder, blob);
  if (server === undefined) throw new Error("the mount was not taken over");
  return { holder, blob, server, asked };
}

async function mountOf(mountpoint: string) {
  return (await readMounts()).find((entry) => entry.mountpoint === mountpoint);
}

/** Another process that reads: one of this process's own threads could not be helped by it. */
function read(offset: number, length: number) {
  const script = `open(my $f, "<", $ARGV[0]) or die $!; sysseek($f, ${offset}, 0); sysread($f, my $b, ${length}) // die $!; print $b`;
  return Bun.spawn(["perl", "-e", script, bench.path("mount/0")], { stderr: "pipe" });
}

async function bytesOf(child: ReturnType<typeof read>): Promise<Buffer> {
  return Buffer.from(await new Response(child.stdout).arrayBuffer());
}
