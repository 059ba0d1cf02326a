import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { IndexStore } from "../../index/store.ts";
import type { LazyMounts } from "../../mount/lazy-mount.ts";
import {
  contentAt,
  contentOf,
  MiB,
  noise,
  type TestImage,
  TestRoom,
  until,
} from "../../mount/mount.test-kit.ts";
import { beginMounting, type ImageMounting } from "./image-mounting.ts";

const never = new AbortController().signal;
let room: TestRoom;
let made: TestImage;
let mounts: LazyMounts;
let index: IndexStore;

beforeEach(async () => {
  room = await TestRoom.create();
  made = await room.image([{ one: noise(9 * MiB) }, { two: noise(9 * MiB) }]);
  mounts = await room.mounts();
  index = await IndexStore.open(join(room.dir, "index"));
});
afterEach(() => room.end());

function begin({ eager = false, backgroundFetch = true } = {}): ImageMounting {
  return beginMounting(
    { index, mounts, backgroundFetch, traces: true },
    {
      workspaceId: "ws",
      manifestDigest: made.opened.index.manifestDigest,
      indexSha256: made.opened.sha256,
      command: [],
      eager,
    },
  );
}

test("an image is mounted before there is a source, nothing of it is asked for, and giving it up leaves nothing", async () => {
  const mounting = begin();
  await mounting.mounted(never);
  expect(mounts.status()).toMatchObject([{ users: 1, requests: 0 }]);
  await mounting.abandon();
  expect(mounts.status()).toEqual([]);
  expect(made.source.reads).toEqual([]);
});

test("whoever joins a mount whose opener gives up goes on by himself, with all that is fetched ahead", async () => {
  const refused = begin();
  await refused.mounted(never);
  const next = begin();
  const { image } = await next.mounted(never);
  await refused.abandon();
  next.provide(made.source);
  image.replaceSource(made.source);
  expect(await contentAt(join(image.root, "one"))).toEqual(contentOf(made, "one"));
  await until(() => image.stats().complete);
  await next.abandon();
  expect(mounts.status()).toEqual([]);
});

test("whoever has joined an opener that gives up is served from where he is provided", async () => {
  const refused = begin();
  const next = begin({ backgroundFetch: false });
  await until(() => mounts.status().length > 0);
  await refused.abandon();
  const { image } = await next.mounted(never);
  next.provide(made.source);
  expect(await contentAt(join(image.root, "two"))).toEqual(contentOf(made, "two"));
  await next.abandon();
  expect(mounts.status()).toEqual([]);
});

test("an eager image that waits for its credential keeps no other container of it waiting", async () => {
  const waiting = begin({ eager: true });
  // Behind what the first has looked up before.
  await index.openImage(made.opened.index.manifestDigest, made.opened.sha256);
  const next = begin({ backgroundFetch: false });
  next.provide(made.source);
  const { image } = await next.mounted(never);
  image.replaceSource(made.source);
  expect(await contentAt(join(image.root, "one"))).toEqual(contentOf(made, "one"));
  waiting.provide(made.source);
  expect((await waiting.mounted(never)).image.stats().complete).toBe(true);
  await Promise.all([waiting.abandon(), next.abandon()]);
});

test("an eager image whose credential never comes is given up at once", async () => {
  const waiting = begin({ eager: true });
  await waiting.abandon();
  await expect(waiting.mounted(never)).rejects.toThrow();
  expect(mounts.status()).toEqual([]);
});
