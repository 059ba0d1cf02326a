import { describe, expect, test } from "bun:test";
import { acquire, noise, TestRoom, useTransport } from "./mount.test-kit.ts";

// What holds for EROFS over files holds for EROFS over loop devices: the same tests once more, in a process of their own.
useTransport("loop");

test("rooms mount over loop devices here", async () => {
  const room = await TestRoom.create();
  const mounts = await room.mounts();
  const image = await acquire(mounts, await room.image([{ file: noise(1000) }]));
  expect(mounts.status()).toMatchObject([{ transport: "loop" }]);
  await image.release();
  await room.end();
});

for (const suite of ["lazy-mount", "lifetime", "damage"])
  describe(suite, () => require(`./${suite}.test.ts`));
