import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TocWriter } from "./layer-toc.ts";
import { defaultIndexLimits } from "./limits.ts";
import { mergeImageInChild } from "./merge-child.ts";
import { type MergeRequest, mergeImage } from "./merge-image.ts";
import { indexTestLayer, type TestLayer } from "./tree-layers.test-kit.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "oci-node-merge-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const command = [process.execPath, join(import.meta.dir, "merge-child-main.ts")];
const never = new AbortController().signal;

function request(name: string, layers: readonly TestLayer[]): MergeRequest {
  return {
    erofsPath: join(folder, name),
    layers: layers.map((layer, at) => {
      const tocPath = join(folder, `toc-${at}`);
      const { toc, blob } = indexTestLayer(layer);
      const writer = TocWriter.create(tocPath);
      for (const entry of toc) writer.add(entry);
      writer.finish();
      return { tocPath, blobSizeBytes: blob.length };
    }),
  };
}

const layers: TestLayer[] = [
  [{ path: "a", type: "file", content: "a", xattrs: { "user.b": "c", "trusted.overlay.redirect": "/x" } }],
  [
    { path: ".wh.a", type: "file" },
    { path: "b", type: "symlink", link: "a" },
  ],
];

test("a process of its own writes the same image", async () => {
  const child = await mergeImageInChild(request("child", layers), never, { command });
  const here = await mergeImage(request("here", layers), never);
  expect(child).toEqual(here);
  expect(child.droppedXattrs).toEqual(["trusted.overlay.redirect"]);
  expect((await readFile(join(folder, "child"))).equals(await readFile(join(folder, "here")))).toBe(true);
});

test("what is wrong with a layer comes back by its code", async () => {
  const broken = request("image", [[{ path: "a", type: "hardlink", link: "nothing" }]]);
  const failure = await mergeImageInChild(broken, never, { command }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "bad_layer", message: expect.stringContaining('"nothing"') });
});

test("a process that dies is said to have died", async () => {
  const dead = mergeImageInChild(request("image", layers), never, {
    command: ["/bin/sh", "-c", "kill -9 $$"],
  });
  expect(await dead.catch((error: unknown) => error)).toMatchObject({ code: "child_failed" });
});

test.each([
  ["memory", { mergeMemoryBytesMax: 1024 }],
  ["time", { mergeCpuSecondsMax: 0.001 }],
])("a process that takes too much %s stops and leaves no image", async (_, limits) => {
  const many: TestLayer = Array.from({ length: 20_000 }, (_, at) => ({ path: `f${at}`, type: "file" }));
  const greedy = mergeImageInChild(request("image", [many]), never, {
    command,
    limits: { ...defaultIndexLimits, ...limits },
  });
  expect(await greedy.catch((error: unknown) => error)).toMatchObject({ code: "limit_exceeded" });
  expect(await readdir(folder)).toEqual(["toc-0"]);
});

test("a cancelled merge ends its process", async () => {
  const controller = new AbortController();
  const hanging = mergeImageInChild(request("image", layers), controller.signal, {
    command: ["sleep", "1000"],
  });
  controller.abort();
  expect(await hanging.catch((error: unknown) => error)).toMatchObject({ code: "cancelled" });
});
