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
  const [digest = "", blob = new Uint8Array()] = [...made.source.blobs.entries()][0] ?? [];
  const layer = { mediaType: "m", digest, size: blob.length };
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
