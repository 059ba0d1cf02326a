import { expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { Engine } from "./engine.ts";
import { FuseBlobServer } from "./fuse.ts";
import { Bench, patterned, plainLayer, serveMisses } from "./layer.test-kit.ts";

const layers = [1, 2, 3].map((seed) => plainLayer(patterned(200_000, seed), 65_536));

/** The numbers of the spans that were read, first read first. */
function inOrder(touches: Uint32Array): number[] {
  return [...touches.keys()].filter((span) => touches[span] !== 0).sort((a, b) => touches[a]! - touches[b]!);
}

test("the first reads of spans are noted in one order over all layers, fetched or already there", async () => {
  using bench = new Bench();
  const blobs = layers.map((layer, index) => bench.open(layer, `layer${index}`));
  const fetches = serveMisses(new Map(blobs.map((blob, index) => [blob, layers[index]!])));
  const warm = FuseBlobServer.mount({ mountpoint: bench.folder("warm"), blobs });
  await readFile(warm.devicePath(0));
  await warm.unmount();
  const before = fetches.length;
  expect(before).toBeGreaterThan(0);

  const again = layers.map((layer, index) => bench.open(layer, `layer${index}`));
  for (const blob of again) blob.beginTouches();
  const server = FuseBlobServer.mount({ mountpoint: bench.folder("mount"), blobs: again });
  serveMisses(new Map(again.map((blob, index) => [blob, layers[index]!])));
  await readFile(server.devicePath(2));
  await readFile(server.devicePath(0));
  const [first, second, third] = again.map((blob) => blob.touches());
  expect(inOrder(first!)).toEqual([0, 1, 2, 3]);
  expect(inOrder(second!)).toEqual([]);
  expect(inOrder(third!)).toEqual([0, 1, 2, 3]);
  expect(Math.max(...third!)).toBeLessThan(Math.min(...first!));

  again[1]!.endTouches();
  await readFile(server.devicePath(1));
  expect(inOrder(again[1]!.touches())).toEqual([]);
  await server.unmount();
  await Promise.all([...blobs, ...again].map((blob) => blob.release()));
  Engine.get().onMiss((blob, span) => Engine.get().fail(blob, span));
});
