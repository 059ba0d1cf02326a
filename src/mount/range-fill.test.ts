import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import type { ReadOptions } from "../registry/blob-source.ts";
import {
  acquire,
  contentAt,
  contentOf,
  MiB,
  noise,
  type TestImage,
  TestRoom,
  until,
} from "./mount.test-kit.ts";

let room: TestRoom;

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
});

/** An image of two files and mounts whose first request for the layer asks for all of it. */
async function begin(): Promise<{ made: TestImage; open: () => ReturnType<typeof acquire> }> {
  const made = await room.image([{ first: noise(3 * MiB), second: noise(3 * MiB) }], "none");
  const [layer = { digest: "" }] = made.opened.layers;
  const trace = {
    program: "",
    starts: 1,
    updatedAt: new Date(),
    ranges: [{ layer: layer.digest, tarOffset: 0, tarLength: 7 * MiB, compressedBytes: 1, missedStarts: 0 }],
  };
  const mounts = await room.mounts();
  return { made, open: () => acquire(mounts, made, { trace }) };
}

/** Sends the first part as it would come from a link, in pieces that end anywhere. */
function sendHalf(bytes: Uint8Array, { onBytes }: ReadOptions): void {
  const half = Math.floor(bytes.length * 0.7);
  for (let at = 0; at < half; at += 100_000) onBytes?.(Math.min(100_000, half - at), bytes);
}

test("readers get their bytes while the rest of the request is on its way", async () => {
  const { made, open } = await begin();
  const gate = Promise.withResolvers<void>();
  made.source.onTheWay = async (bytes, options) => {
    sendHalf(bytes, options);
    await gate.promise;
  };
  const image = await open();
  expect(Bun.hash(await contentAt(join(image.root, "first")))).toBe(Bun.hash(contentOf(made, "first")));
  expect(image.stats()).toMatchObject({ requests: 1, complete: false });
  const reading = contentAt(join(image.root, "second"));
  gate.resolve();
  expect(Bun.hash(await reading)).toBe(Bun.hash(contentOf(made, "second")));
  expect(image.stats().requests).toBe(1);
  await image.release();
});

test("a request that breaks fails the readers of what did not come, and nobody else", async () => {
  const { made, open } = await begin();
  let failing = true;
  const gate = Promise.withResolvers<void>();
  made.source.onTheWay = async (bytes, options) => {
    if (!failing) return;
    sendHalf(bytes, options);
    await gate.promise;
    throw new Error("the link broke");
  };
  const image = await open();
  const first = contentAt(join(image.root, "first"));
  const second = contentAt(join(image.root, "second")).then(
    () => "read",
    (error: NodeJS.ErrnoException) => error.code,
  );
  expect(Bun.hash(await first)).toBe(Bun.hash(contentOf(made, "first")));
  gate.resolve();
  expect(await second).toBe("EIO");
  failing = false;
  expect(Bun.hash(await contentAt(join(image.root, "second")))).toBe(Bun.hash(contentOf(made, "second")));
  await image.release();
});

test("wrong bytes on the way are asked for once more, and what a source sends anew begins anew", async () => {
  const { made, open } = await begin();
  let asked = 0;
  made.source.onTheWay = async (bytes, options) => {
    asked += 1;
    if (asked > 1) return;
    const wrong = bytes.slice();
    wrong[3 * MiB] = ~(wrong[3 * MiB] ?? 0);
    options.onBytes?.(3 * MiB, wrong);
    sendHalf(wrong, options);
    sendHalf(bytes, options);
  };
  const image = await open();
  for (const file of ["first", "second"])
    expect(Bun.hash(await contentAt(join(image.root, file)))).toBe(Bun.hash(contentOf(made, file)));
  await until(() => image.stats().spansPresent === image.stats().spansTotal);
  expect(asked).toBe(2);
  await image.release();
});

test("what a source sends that was left behind does no harm", async () => {
  const { made, open } = await begin();
  const late = Promise.withResolvers<() => void>();
  made.source.onTheWay = (bytes, options) => {
    late.resolve(() => sendHalf(bytes, options));
    return new Promise(() => undefined);
  };
  const image = await open();
  const send = await late.promise;
  await image.release();
  send();
  expect(image.stats().spansPresent).toBeLessThan(image.stats().spansTotal);
});
