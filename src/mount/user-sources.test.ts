import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { CredentialError } from "../credential/error.ts";
import { RegistryError } from "../registry/error.ts";
import { AwaitedSource } from "./awaited-source.ts";
import { MountError } from "./error.ts";
import type { LazyImage } from "./lazy-image.ts";
import { defaultFetchLimits } from "./limits.ts";
import {
  acquire,
  contentAt,
  contentOf,
  MiB,
  noise,
  type TestImage,
  TestRoom,
  TestSource,
  until,
} from "./mount.test-kit.ts";
import { SourceRequests } from "./source-requests.ts";

let room: TestRoom;
let made: TestImage;
let others: TestSource;

beforeEach(async () => {
  room = await TestRoom.create();
  made = await room.image([{ one: noise(9 * MiB) }, { two: noise(9 * MiB) }]);
  others = new TestSource(made.source.blobs);
});
afterEach(() => room.end());

/** Two users of one mount; the first opened it. */
async function two(): Promise<[LazyImage, LazyImage]> {
  const mounts = await room.mounts();
  const first = await acquire(mounts, made);
  const second = await acquire(mounts, { ...made, source: others });
  second.replaceSource(others);
  return [first, second];
}

function firstLayer() {
  const [digest = "", blob = new Uint8Array()] = [...made.source.blobs.entries()][0] ?? [];
  return { layer: { mediaType: "m", digest, size: blob.length }, blob };
}

const refusal = () =>
  new RegistryError("unauthorized", "the credential is refused", { registry: "r", repository: "p" });

test("the oldest user's source serves, and the next one's when he leaves", async () => {
  const [first, second] = await two();
  expect(await contentAt(join(second.root, "one"))).toEqual(contentOf(made, "one"));
  expect(others.reads).toEqual([]);
  const asked = made.source.reads.length;
  expect(asked).toBeGreaterThan(0);
  await first.release();
  made.source.beforeRead = () => Promise.reject(new CredentialError("expired", "its container has ended"));
  expect(await contentAt(join(second.root, "two"))).toEqual(contentOf(made, "two"));
  expect(made.source.reads).toHaveLength(asked);
  expect(others.reads.length).toBeGreaterThan(0);
  await second.release();
});

test("a user who is refused is served by another's source, and no reader hears of it", async () => {
  const [first, second] = await two();
  made.source.beforeRead = () => Promise.reject(refusal());
  expect(await contentAt(join(first.root, "one"))).toEqual(contentOf(made, "one"));
  expect(others.reads.length).toBeGreaterThan(0);
  others.beforeRead = () => Promise.reject(refusal());
  await expect(contentAt(join(first.root, "two"))).rejects.toThrow("EIO");
  await second.release();
  await first.release();
});

test("a source takes the place of its user's own, whoever else there is", async () => {
  const [first, second] = await two();
  const renewed = new TestSource(made.source.blobs);
  first.replaceSource(renewed);
  expect(await contentAt(join(first.root, "one"))).toEqual(contentOf(made, "one"));
  expect(renewed.reads.length).toBeGreaterThan(0);
  expect([made.source.reads, others.reads]).toEqual([[], []]);
  await second.release();
  await first.release();
});

test("a user whose source is yet to come keeps nobody waiting who has one, nor those who came before it", async () => {
  const mounts = await room.mounts();
  const first = await acquire(mounts, made, { source: new AwaitedSource() });
  const reading = contentAt(join(first.root, "one"));
  const second = await acquire(mounts, { ...made, source: others });
  second.replaceSource(others);
  expect(await reading).toEqual(contentOf(made, "one"));
  await first.release();
  expect(await contentAt(join(second.root, "two"))).toEqual(contentOf(made, "two"));
  await second.release();
});

test("what waited goes on with its own user's source, also when another's served meanwhile and left", async () => {
  const { layer, blob } = firstLayer();
  const own = new AwaitedSource();
  const requests = new SourceRequests(own, { ...defaultFetchLimits, deadlineMs: 5_000 });
  const first = requests.read(layer, 0, 10);
  requests.replaceSource(others);
  expect(await first).toEqual(blob.slice(0, 10));
  requests.withdrawSource(others);
  others.beforeRead = () => Promise.reject(new CredentialError("expired", "its container has ended"));
  const second = requests.read(layer, 10, 20);
  own.provide(made.source);
  expect(await second).toEqual(blob.slice(10, 20));
});

test("whoever joined one who gave up before he had a source is served by his own", async () => {
  const { layer, blob } = firstLayer();
  const abandoned = new AwaitedSource();
  const requests = new SourceRequests(abandoned, { ...defaultFetchLimits, deadlineMs: 5_000 });
  const joined = new AwaitedSource();
  requests.replaceSource(joined);
  const early = requests.read(layer, 0, 10);
  // His attempt was given up while it was being mounted: it never was his to leave.
  abandoned.withdraw(new MountError("cancelled", "nobody brought a credential"));
  const late = requests.read(layer, 10, 20);
  requests.replaceSource(others, joined);
  expect(await early).toEqual(blob.slice(0, 10));
  expect(await late).toEqual(blob.slice(10, 20));

  const given = new AwaitedSource();
  given.withdraw(new MountError("cancelled", "nobody brought a credential"));
  const again = new SourceRequests(given, { ...defaultFetchLimits, deadlineMs: 5_000 });
  again.replaceSource(others);
  expect(await again.read(layer, 0, 10)).toEqual(blob.slice(0, 10));
});

test("a user who is refused hears so at once, whoever is yet to get a credential", async () => {
  const { layer } = firstLayer();
  const requests = new SourceRequests(made.source, { ...defaultFetchLimits, deadlineMs: 5_000 });
  requests.replaceSource(new AwaitedSource());
  made.source.beforeRead = () => Promise.reject(refusal());
  await expect(requests.read(layer, 0, 10)).rejects.toThrow("the credential is refused");
});

test("nothing is fetched ahead before there is a source: no request's time passes while nobody can answer", async () => {
  const mounts = await room.mounts({ limits: { deadlineMs: 300 } });
  const source = new AwaitedSource();
  const first = await acquire(mounts, made, { source, bringAll: true });
  expect(first.stats().requests).toBe(0);
  source.provide(made.source);
  await until(() => first.stats().complete);
  await first.release();
});

test("what waits for a source that will not come is told so", async () => {
  const mounts = await room.mounts();
  const source = new AwaitedSource();
  const first = await acquire(mounts, made, { source });
  const reading = contentAt(join(first.root, "one"));
  source.withdraw(new MountError("cancelled", "nobody brought a credential"));
  await expect(reading).rejects.toThrow("EIO");
  await first.release();
});

test("what is under way when its user leaves goes on from where it was with another's source", async () => {
  const { layer, blob } = firstLayer();
  const requests = new SourceRequests(made.source, { ...defaultFetchLimits, deadlineMs: 5_000 });
  requests.replaceSource(others);
  const received: Uint8Array[] = [];
  for await (const chunk of requests.stream(layer)) {
    received.push(chunk);
    if (received.length === 3) requests.withdrawSource(made.source);
  }
  expect(Buffer.concat(received)).toEqual(Buffer.from(blob));
  expect([made.source.streams.length, others.streams.length]).toEqual([1, 1]);

  const again = new SourceRequests(made.source, { ...defaultFetchLimits, deadlineMs: 5_000 });
  again.replaceSource(others);
  made.source.beforeRead = () => {
    again.withdrawSource(made.source);
    throw new Error("its container has ended");
  };
  expect(await again.read(layer, 10, 20)).toEqual(blob.slice(10, 20));
});

test("a credential that has ended is what the reader's failure says, with the next step", async () => {
  const mounts = await room.mounts();
  const image = await acquire(mounts, made);
  const next = "Store the credential again.";
  made.source.beforeRead = () =>
    Promise.reject(new CredentialError("no_credentials", "the secret is gone", { next }));
  await expect(contentAt(join(image.root, "one"))).rejects.toThrow("EIO");
  const failure = await image.failure;
  expect(failure).toMatchObject({ code: "source_failed", next });
  expect(failure.message).toContain("the secret is gone");
  await image.release();
});
