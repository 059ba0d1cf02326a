import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../std/spawn.ts";
import type { LazyImage } from "./lazy-image.ts";
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

let room: TestRoom;

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
});

const readers = 64;

/** So many processes read the file of each mount at once. Gives the different sums that they came to. */
async function readTogether(images: readonly LazyImage[]): Promise<Set<string>> {
  const roots = images.map(({ root }) => root);
  const each = readers / roots.length;
  const script = `for root in "$@"; do for n in $(seq ${each}); do sha256sum < "$root/file" & done; done; wait`;
  const { stdout } = await run(["sh", "-c", script, "sh", ...roots], { timeoutMs: 60_000 });
  const sums = stdout.trim().split("\n");
  expect(sums).toHaveLength(readers);
  return new Set(sums);
}

function sourceLike(made: TestImage): TestSource {
  return new TestSource(made.source.blobs);
}

test("64 readers of the same spans over mounts of one workspace and of another cause one request", async () => {
  const mounts = await room.mounts();
  // Smaller than a span, so that every request is for the same one.
  const made = await room.image([{ file: noise(MiB) }]);
  const places = [
    { workspace: "a" },
    { workspace: "a", target: join(room.dir, "second") },
    { workspace: "a", target: join(room.dir, "third") },
    { workspace: "b" },
  ];
  const images: LazyImage[] = [];
  const sources = places.map(() => sourceLike(made));
  for (const [at, { workspace, target }] of places.entries()) {
    if (target !== undefined) await mkdir(target);
    const where = target === undefined ? {} : { target };
    images.push(await acquire(mounts, made, { workspace, source: sources[at]!, ...where }));
  }
  expect((await readTogether(images)).size).toBe(1);
  expect(sources.flatMap(({ reads }) => reads)).toHaveLength(1);
  for (const image of images) await image.release();
});

test("when the workspace that was asked first has no right to the bytes, the others ask for themselves", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(MiB) }]);
  const refused = sourceLike(made);
  const gate = Promise.withResolvers<void>();
  refused.beforeRead = () => gate.promise.then(() => Promise.reject(new Error("not yours")));
  const allowed = sourceLike(made);
  const first = await acquire(mounts, made, { workspace: "refused", source: refused });
  const second = await acquire(mounts, made, { workspace: "allowed", source: allowed });
  const failing = contentAt(join(first.root, "file")).then(
    () => "read",
    (error: NodeJS.ErrnoException) => error.code,
  );
  await until(() => refused.reads.length > 0);
  const reading = contentAt(join(second.root, "file"));
  gate.resolve();
  expect(Bun.hash(await reading)).toBe(Bun.hash(contentOf(made, "file")));
  // Its own reader got an error, or the bytes that the other had fetched in the meantime.
  expect(["EIO", "read"]).toContain((await failing) ?? "");
  expect(allowed.reads.length).toBeGreaterThan(0);
  await first.release();
  await second.release();
});
