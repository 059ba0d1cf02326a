import { expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IndexStore } from "../index/store.ts";
import { forgetWorkspace } from "./tenants.ts";

test("the traces of a workspace that is gone go with it, also of an image that another one has", async () => {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-forget-"));
  const index = await IndexStore.open(dir);
  const layer = `sha256:${"a".repeat(64)}`;
  const manifestDigest = `sha256:${"b".repeat(64)}`;
  const ranges = [{ layer, tarOffset: 0, tarLength: 1000, compressedBytes: 500 }];
  for (const workspace of ["gone", "there"])
    await index.traces.record({ workspace, manifestDigest, argv: [] }, { ranges, seenLayers: [layer] });
  await forgetWorkspace(index, { id: "gone", name: "g", unusedManifests: [] });
  expect(await index.traces.list("gone", manifestDigest)).toEqual([]);
  expect(await index.traces.list("there", manifestDigest)).toHaveLength(1);
  await rm(dir, { recursive: true, force: true });
});
