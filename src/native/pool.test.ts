import { expect, test } from "bun:test";
import { open } from "node:fs/promises";
import { Engine } from "./engine.ts";
import { FuseBlobServer } from "./fuse.ts";
import { Bench, fetched, gzipMembersLayer, patterned } from "./layer.test-kit.ts";

test("a span that nobody waited for is filled ahead of others once a reader does", async () => {
  using bench = new Bench();
  const layer = gzipMembersLayer(patterned(24 * 1024 * 1024, 9), 512 * 1024);
  const blob = bench.open(layer, "layer");
  const server = FuseBlobServer.mount({ mountpoint: bench.folder("mount"), blobs: [blob] });
  const last = blob.spanCount - 1;
  const filled = Engine.get().fill(blob, 0, last, fetched(layer, 0, last));
  const file = await open(server.devicePath(0));
  await file.read(Buffer.alloc(4096), 0, 4096, blob.span(last).blobOffset);
  expect(blob.presentCount()).toBeLessThan(blob.spanCount - 8);
  await file.close();
  await filled;
  expect(blob.complete).toBe(true);
  await server.unmount();
  await blob.release();
});
