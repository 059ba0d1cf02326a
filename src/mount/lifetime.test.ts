import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { umount } from "../native/linux.ts";
import { LazyMounts } from "./lazy-mount.ts";
import { acquire, contentAt, contentOf, MiB, mountsBelow, noise, TestRoom } from "./mount.test-kit.ts";

let room: TestRoom;

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
});

test("a mount of complete layers outlives its process, and a successor adopts and ends it", async () => {
  const first = await room.mounts();
  const made = await room.image([{ file: noise(3 * MiB) }]);
  const { root } = await acquire(first, made, { eager: true });
  await first.close();
  expect(await contentAt(join(root, "file"))).toEqual(contentOf(made, "file"));

  const second = await room.mounts();
  const { manifestDigest } = made.opened.index;
  expect(second.stale()).toEqual([{ root, workspace: "ws", manifestDigest, alive: true }]);
  const adopted = await second.adoptMount(root);
  expect(adopted.stats()).toMatchObject({ complete: true, fetchedBytes: 0 });
  const joined = await acquire(second, made);
  expect(joined.root).toBe(root);
  await adopted.release();
  expect(await contentAt(join(root, "file"))).toEqual(contentOf(made, "file"));
  await joined.release();
  expect(await mountsBelow(room.dir)).toEqual([]);
});

test("a living mount that nobody adopts can be cleared, and a second time does nothing", async () => {
  const first = await room.mounts();
  const made = await room.image([{ file: noise(1000) }]);
  const { root } = await acquire(first, made, { eager: true });
  await first.close();
  const second = await room.mounts();
  await second.clear(root);
  await second.clear(root);
  expect(await mountsBelow(room.dir)).toEqual([]);
  const again = await acquire(second, made);
  expect(await contentAt(join(again.root, "file"))).toEqual(contentOf(made, "file"));
  await again.release();
});

test("what a killed process served is cleared by its successor", async () => {
  const made = await room.image([{ file: noise(3 * MiB) }]);
  const child = await startChild(made.opened.index.manifestDigest);
  const { root } = child;
  expect(await mountsBelow(room.dir)).toHaveLength(2);
  child.kill("SIGKILL");
  await child.exited;
  const mounts = await room.mounts();
  expect(mounts.stale()).toMatchObject([{ root, alive: false }]);
  expect(await mountsBelow(room.dir)).toEqual([]);
  expect(await readdir(join(room.dir, "state", "mounts"))).toEqual([]);
  const image = await acquire(mounts, made);
  expect(await contentAt(join(image.root, "file"))).toEqual(contentOf(made, "file"));
  await image.release();
});

test("a process that shares the cache with another's served mount has a blob of its own", async () => {
  const made = await room.image([{ file: noise(3 * MiB) }]);
  const child = await startChild(made.opened.index.manifestDigest);
  const mounts = await room.mounts({ stateDir: join(room.dir, "other") });
  const image = await acquire(mounts, made);
  expect(await contentAt(join(image.root, "file"))).toEqual(contentOf(made, "file"));
  await image.release();
  child.kill("SIGKILL");
  await child.exited;
});

test("a state directory belongs to one process at a time", async () => {
  await room.mounts();
  const refused = await room.mounts().catch((error: unknown) => error);
  expect(refused).toMatchObject({ name: "MountError", code: "busy" });
});

test("acquiring can be cancelled at any moment and leaves nothing", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(5 * MiB) }]);
  const asked = Promise.withResolvers<void>();
  made.source.beforeRead = () => {
    asked.resolve();
    return new Promise(() => undefined);
  };
  const eager = new AbortController();
  const waiting = acquire(mounts, made, { eager: true, signal: eager.signal }).catch(
    (error: unknown) => error,
  );
  await asked.promise;
  eager.abort();
  expect(await waiting).toMatchObject({ name: "MountError", code: "cancelled" });
  for (let turns = 0; turns < 40; turns += 4) {
    const leaving = new AbortController();
    const lazy = acquire(mounts, made, { signal: leaving.signal }).then(
      (image) => image.release(),
      (error: unknown) => expect(error).toMatchObject({ code: "cancelled" }),
    );
    for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    leaving.abort();
    await lazy;
  }
  expect(mounts.status()).toEqual([]);
  expect(await mountsBelow(room.dir)).toEqual([]);
});

test("a tree in use is not taken away: release says so and can be tried again", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(1000) }]);
  const image = await acquire(mounts, made);
  const held = await open(join(image.root, "file"));
  const refused = await image.release().catch((error: unknown) => error);
  expect(refused).toMatchObject({ name: "MountError", code: "busy" });
  expect((await held.readFile()).equals(contentOf(made, "file"))).toBe(true);
  await held.close();
  await image.release();
  expect(await mountsBelow(room.dir)).toEqual([]);
});

test("closing takes served mounts away even from who waits for a read", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(MiB) }]);
  const asked = Promise.withResolvers<void>();
  made.source.beforeRead = () => {
    asked.resolve();
    return new Promise(() => undefined);
  };
  const image = await acquire(mounts, made);
  const reading = readFile(join(image.root, "file")).catch((error: NodeJS.ErrnoException) => error.code);
  await asked.promise;
  await mounts.close();
  expect(await reading).toBe("EIO");
  expect(await mountsBelow(room.dir)).toEqual([]);
  expect(await acquire(mounts, made).catch((error: unknown) => error)).toMatchObject({ code: "cancelled" });
});

test("a mount at a folder of the user's leaves the folder, and somebody else's umount does no harm", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(1000) }]);
  const target = join(room.dir, "target");
  await mkdir(target);
  const image = await acquire(mounts, made, { target, restrict: true });
  expect(image.root).toBe(target);
  expect((await mountsBelow(target))[0]).toContain("nosuid");
  expect(await contentAt(join(target, "file"))).toEqual(contentOf(made, "file"));
  await umount(target);
  await image.release();
  expect(await readdir(target)).toEqual([]);
});

test("the cache keeps to its quota by the layers that nobody has used for longest", async () => {
  const quota = { cacheQuotaBytes: 5 * MiB };
  const mounts = await room.mounts(quota);
  const images = [];
  for (let count = 0; count < 3; count += 1) images.push(await room.image([{ file: noise(2 * MiB) }]));
  for (const made of images) {
    const image = await acquire(mounts, made, { eager: true });
    await image.release();
  }
  await mounts.close();
  const later = await LazyMounts.create({
    stateDir: join(room.dir, "other"),
    cacheDir: join(room.dir, "cache"),
    transport: "auto",
    ...quota,
  });
  const left = (await readdir(join(room.dir, "cache", "layers", "sha256"))).filter((name) =>
    name.endsWith(".blob"),
  );
  const digests = images.map((made) => made.opened.index.layers[0]?.digest.replace("sha256:", "") ?? "");
  expect(left.map((name) => name.slice(0, 64)).sort()).toEqual(digests.slice(1).sort());
  await later.close();
});

test("a layer in use is never evicted", async () => {
  const mounts = await room.mounts({ cacheQuotaBytes: MiB });
  const used = await room.image([{ file: noise(3 * MiB) }]);
  const other = await room.image([{ file: noise(3 * MiB) }]);
  const held = await acquire(mounts, used, { eager: true });
  const passing = await acquire(mounts, other, { eager: true });
  await passing.release();
  const again = await acquire(mounts, used, { workspace: "other", eager: true });
  expect(again.stats().fetchedBytes).toBe(0);
  await again.release();
  await held.release();
});

/** Another process that mounts the image, to be killed. */
async function startChild(manifestDigest: string) {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "serve-and-hang.test-kit.ts"), room.dir], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
    env: { ...process.env, MANIFEST: manifestDigest },
  });
  const { value } = await child.stdout.getReader().read();
  const root = new TextDecoder().decode(value).trim();
  return { root, exited: child.exited, kill: (signal: NodeJS.Signals) => child.kill(signal) };
}
