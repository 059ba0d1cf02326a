import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, readdir, readlink, rm } from "node:fs/promises";
import { join } from "node:path";
import { FuseBlobServer } from "../native/fuse.ts";
import { HolderConnection } from "../native/holder.ts";
import { waitForExit } from "../native/process.ts";
import { MountHolder } from "./holder.ts";
import { acquire, contentOf, MiB, mountsBelow, noise, type TestImage, TestRoom } from "./mount.test-kit.ts";

let room: TestRoom;
const pids: number[] = [];

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
  for (const pid of pids.splice(0)) await waitForExit(pid);
});

const handover = (patienceMs = 60_000) => ({
  patienceMs,
  openIndex: (digest: string, sha256: string) => room.openIndex(digest, sha256),
});

/** An image with one file in the cache and one that is not, in layers of their own. */
async function halfCached(): Promise<TestImage> {
  const made = await room.image([{ here: noise(3 * MiB) }, { there: noise(3 * MiB), aside: noise(MiB) }]);
  const mounts = await room.mounts();
  const image = await acquire(mounts, made);
  await read(image.root, "here").bytes;
  // The second layer is begun, so that both are served.
  await read(image.root, "aside").bytes;
  await image.release();
  await mounts.close();
  return made;
}

test.each(["file", "loop"] as const)(
  "readers of a mount (%s) outlive two servers that are killed: they get every byte, and no error",
  async (transport) => {
    const made = await halfCached();
    const first = await startServer(made, transport);
    const missing = read(first.root, "there");
    await first.says("miss");
    await first.kill();
    const cached = read(first.root, "here");
    const second = await startServer(made, transport);
    expect(second.root).toBe(first.root);
    expect(await cached.bytes).toEqual(Buffer.from(contentOf(made, "here")));
    await second.says("miss");
    expect(missing.exitCode()).toBeNull();
    await second.kill();
    const mounts = await room.mounts({ transport, handover: handover() });
    expect(mounts.stale()).toMatchObject([{ root: first.root, alive: true }]);
    const image = await mounts.adoptMount(first.root);
    expect(mounts.status()).toMatchObject([{ transport, servedByProcess: true, users: 1 }]);
    expect(missing.exitCode()).toBeNull();
    image.replaceSource(made.source);
    expect(await missing.bytes).toEqual(Buffer.from(contentOf(made, "there")));
    expect(image.stats().fetchedBytes).toBeGreaterThan(2 * MiB);
    await image.release();
    expect(await mountsBelow(room.dir)).toEqual([]);
    await mounts.close();
    expect(await holderOf(room)).toBeUndefined();
  },
);

test("a miss that nobody names a source for ends at its deadline", async () => {
  const made = await halfCached();
  const first = await startServer(made);
  await first.kill();
  const mounts = await room.mounts({ handover: handover(), limits: { deadlineMs: 200 } });
  const image = await mounts.adoptMount(first.root);
  await expect(read(first.root, "there").bytes).rejects.toThrow("Input/output error");
  image.replaceSource(made.source);
  expect(await read(first.root, "there").bytes).toEqual(Buffer.from(contentOf(made, "there")));
  await image.release();
});

test("a served mount that nobody adopts is cleared, and its holder ends", async () => {
  const made = await halfCached();
  const first = await startServer(made);
  await first.kill();
  const mounts = await room.mounts({ handover: handover() });
  await mounts.clearStale();
  expect(mounts.status()).toEqual([]);
  expect(await mountsBelow(room.dir)).toEqual([]);
  await mounts.close();
  expect(await holderOf(room)).toBeUndefined();
});

test("whoever comes for the image joins the mount that was taken over", async () => {
  const made = await halfCached();
  const first = await startServer(made);
  await first.kill();
  const mounts = await room.mounts({ handover: handover() });
  const joined = await acquire(mounts, made);
  expect(joined.root).toBe(first.root);
  joined.replaceSource(made.source);
  expect(await read(joined.root, "there").bytes).toEqual(Buffer.from(contentOf(made, "there")));
  await joined.release();
  expect(await mountsBelow(room.dir)).toEqual([]);
});

test("a mount whose index is gone cannot be served on: it is cleared and its readers get errors", async () => {
  const made = await halfCached();
  const first = await startServer(made);
  const missing = read(first.root, "there");
  await first.says("miss");
  await first.kill();
  await rm(join(room.dir, "index", "images"), { recursive: true });
  const mounts = await room.mounts({ handover: handover() });
  expect(mounts.stale()).toMatchObject([{ root: first.root, alive: false }]);
  await expect(missing.bytes).rejects.toThrow();
  expect(await mountsBelow(room.dir)).toEqual([]);
});

test("without a next process, reads fail when the holder's patience ends", async () => {
  const made = await halfCached();
  const first = await startServer(made, "auto", 500);
  const missing = read(first.root, "there");
  await first.says("miss");
  await first.kill();
  await expect(missing.bytes).rejects.toThrow();
  expect(await holderOf(room)).toBeUndefined();
  const mounts = await room.mounts({ handover: handover() });
  expect(mounts.stale()).toMatchObject([{ root: first.root, alive: false }]);
  expect(await mountsBelow(room.dir)).toEqual([]);
});

test("a holder that was killed is followed by another at once, which gets what is still served", async () => {
  const started: number[] = [];
  const holder = await MountHolder.open(room.dir, {
    patienceMs: 60_000,
    onStarted: async (pid) => void started.push(pid),
  });
  const servers: FuseBlobServer[] = [];
  for (const name of ["a", "b"]) {
    const dir = join(room.dir, name.repeat(32));
    await mkdir(dir);
    const server = FuseBlobServer.mount({ mountpoint: dir, blobs: [] });
    servers.push(server);
    await holder.hold(dir, server);
  }
  const [first = 0] = started;
  expect(await fuseDescriptors(first)).toBe(2);
  process.kill(first, "SIGKILL");
  while (started.length < 2) await new Promise((resolve) => setImmediate(resolve));
  const [, second = 0] = started;
  while ((await fuseDescriptors(second)) < 2) expect(started).toHaveLength(2);
  for (const server of servers) await server.unmount();
  await holder.close();
  await waitForExit(second);
});

async function fuseDescriptors(pid: number): Promise<number> {
  const folder = `/proc/${pid}/fd`;
  // It closes a message's descriptor once it has one of its own: that may be between the two looks.
  const targets = await Promise.all(
    (await readdir(folder)).map((fd) => readlink(join(folder, fd)).catch(() => "")),
  );
  return targets.filter((target) => target === "/dev/fuse").length;
}

async function holderOf({ dir }: TestRoom): Promise<HolderConnection | undefined> {
  return await HolderConnection.connect({ folder: join(dir, "state", "mounts"), patienceMs: 60_000 });
}

/** Reads a file in a process of its own, which nothing of this one's end or waiting touches. */
function read(root: string, path: string) {
  const child = Bun.spawn(["cat", join(root, path)], { stdout: "pipe", stderr: "pipe" });
  const bytes = (async () => {
    const [got, said] = await Promise.all([
      new Response(child.stdout).arrayBuffer(),
      new Response(child.stderr).text(),
    ]);
    if ((await child.exited) !== 0) throw new Error(said);
    return Buffer.from(got);
  })();
  bytes.catch(() => undefined);
  return { bytes, exitCode: () => child.exitCode };
}

async function startServer(made: TestImage, transport = "auto", patienceMs = 60_000) {
  const script = join(import.meta.dir, "serve-and-hang.test-kit.ts");
  const child = Bun.spawn([process.execPath, script, room.dir, String(patienceMs), transport], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
    env: { ...process.env, MANIFEST: made.opened.index.manifestDigest },
  });
  pids.push(child.pid);
  const said: string[] = [];
  const reader = child.stdout.getReader();
  const decoder = new TextDecoder();
  const until = async (what: (line: string) => boolean): Promise<string> => {
    for (;;) {
      const found = said.find(what);
      if (found !== undefined) return found;
      const { value, done } = await reader.read();
      if (done) throw new Error("the server ended");
      said.push(...decoder.decode(value, { stream: true }).split("\n"));
    }
  };
  const root = await until((line) => line.startsWith("/"));
  return {
    root,
    says: (word: string) => until((line) => line === word),
    kill: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}
