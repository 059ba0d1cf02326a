import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { run } from "../std/spawn.ts";
import { type IndexChildOptions, indexLayerInChild } from "./child.ts";
import { checkLayer, chunksOf, failureOf, indexBytes, ociTar, sha256 } from "./layer.test-kit.ts";
import type { LayerToIndex } from "./layer-index.ts";
import { defaultIndexLimits } from "./limits.ts";
import { makeTar, SeededRandom } from "./tar.test-kit.ts";
import type { IndexedLayer } from "./types.ts";

const command = [process.execPath, fileURLToPath(new URL("./child-main.ts", import.meta.url))];
let directory: string;
let out: { spanPath: string; tocPath: string };
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-child-"));
  out = { spanPath: join(directory, "span"), tocPath: join(directory, "toc") };
});
afterEach(async () => {
  await rm(out.spanPath, { force: true });
  await rm(out.tocPath, { force: true });
  expect(await readdir(directory)).toEqual([]);
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

const random = new SeededRandom(7);
const tar = makeTar(
  Array.from({ length: 30 }, (_, at) => ({ name: `f${at}`, data: random.bytes(100_000 + at) })),
);
const layer = gzipSync(tar);

function describe(bytes: Uint8Array): LayerToIndex {
  return { digest: `sha256:${sha256(bytes)}`, size: bytes.length, mediaType: `${ociTar}+gzip` };
}

function index(
  bytes: AsyncIterable<Uint8Array>,
  what: LayerToIndex,
  options: IndexChildOptions & { signal?: AbortSignal; limits?: object } = {},
): Promise<IndexedLayer> {
  const limits = { ...defaultIndexLimits, ...options.limits };
  return indexLayerInChild(what, bytes, out, limits, options.signal ?? new AbortController().signal, {
    command,
    ...options,
  });
}

test("gives what indexing in this process gives", async () => {
  const indexed = await index(chunksOf(layer), describe(layer));
  await checkLayer(layer, tar, out, indexed);
  const toc = await readFile(out.tocPath);
  expect(indexed).toEqual(await indexBytes(layer, out));
  expect(toc.equals(await readFile(out.tocPath))).toBe(true);
});

test("writes the blob where it is wanted, and leaves none of a layer that fails", async () => {
  const blob = { path: join(directory, "blob"), sizeBytesMax: 2 ** 40, freeBytesMin: 0 };
  const withBlob = (bytes: Uint8Array, what: LayerToIndex, place = blob) =>
    indexLayerInChild(
      what,
      chunksOf(bytes),
      { ...out, blob: place },
      defaultIndexLimits,
      new AbortController().signal,
      { command },
    );
  const checked = await checkLayer(layer, tar, out, await withBlob(layer, describe(layer)));
  expect((await readFile(blob.path)).equals(checked.blob)).toBe(true);
  const other = { ...describe(layer), digest: `sha256:${"0".repeat(64)}` };
  expect((await failureOf(withBlob(layer, other))).code).toBe("digest_mismatch");
  expect(await readdir(directory)).not.toContain("blob");
  await withBlob(layer, describe(layer), { ...blob, sizeBytesMax: 1 });
  expect(await readdir(directory)).not.toContain("blob");
});

test("passes on what is wrong with a layer, by code and message", async () => {
  const [wrong, broken, bomb] = await Promise.all([
    failureOf(index(chunksOf(layer), { ...describe(layer), digest: `sha256:${"0".repeat(64)}` })),
    failureOf(index(chunksOf(layer.subarray(0, -9)), describe(layer.subarray(0, -9)))),
    failureOf(index(chunksOf(layer), describe(layer), { limits: { entriesMax: 3 } })),
  ]);
  expect([wrong.code, broken.code, bomb.code]).toEqual(["digest_mismatch", "bad_layer", "limit_exceeded"]);
  expect(bomb.message).toContain("entries_max");
});

test("stops reading the source when the answer is there before its end", async () => {
  let pulled = 0;
  let returned = false;
  const endless = (async function* () {
    try {
      for (;;) {
        pulled += 1;
        yield layer;
      }
    } finally {
      returned = true;
    }
  })();
  const { code } = await failureOf(index(endless, { ...describe(layer), size: 5_000_000 }));
  expect([code, returned]).toEqual(["digest_mismatch", true]);
  expect(pulled).toBeLessThan(100);
});

test("ends the process when the signal fires while the source is silent", async () => {
  const abort = new AbortController();
  const fifo = join(directory, "pid");
  await run(["mkfifo", fifo]);
  let pid = 0;
  const silent = (async function* () {
    yield layer.subarray(0, 1000);
    pid = Number(await readFile(fifo, "utf8"));
    queueMicrotask(() => abort.abort());
    await new Promise(() => {});
  })();
  const recording = ["sh", "-c", `echo $$ > ${fifo}; exec "$@"`, "sh", ...command];
  const { code } = await failureOf(
    index(silent, describe(layer), { command: recording, signal: abort.signal }),
  );
  await rm(fifo);
  expect(code).toBe("cancelled");
  expect(pid).toBeGreaterThan(1);
  expect(() => process.kill(pid, 0)).toThrow();
  const already = await failureOf(index(chunksOf(layer), describe(layer), { signal: abort.signal }));
  expect(already.code).toBe("cancelled");
});

test("passes a failure of the source on as it is, and ends the process", async () => {
  const broken = (async function* () {
    yield layer.subarray(0, 1000);
    throw new Error("the registry went away");
  })();
  expect((await failureOf(index(broken, describe(layer)))).message).toBe("the registry went away");
});

test("says so when the process cannot start, dies, or talks nonsense", async () => {
  for (const bad of [
    ["/nonexistent"],
    ["sh", "-c", "kill -9 $$"],
    ["sh", "-c", "echo hello; cat >/dev/null"],
  ]) {
    const { code, message } = await failureOf(index(chunksOf(layer), describe(layer), { command: bad }));
    expect(code).toBe("child_failed");
    if (bad[2]?.startsWith("kill")) expect(message).toContain("SIGKILL");
  }
});

test("starts the process with a clean environment", async () => {
  const seen = join(directory, "..", `env-${process.pid}-${Date.now()}`);
  const shown = ["sh", "-c", `env > ${seen}; exec "$@"`, "sh", ...command];
  // The test runner sets it in this process: something that must not be seen is there.
  expect(process.env["NODE_ENV"]).toBe("test");
  try {
    await index(chunksOf(layer), describe(layer), { command: shown });
    const names = (await readFile(seen, "utf8")).split("\n").map((line) => line.split("=")[0] ?? "");
    expect(
      names.filter((name) => !["PATH", "LANG", "PWD", "_", "SHLVL", "OLDPWD", ""].includes(name)),
    ).toEqual([]);
  } finally {
    await rm(seen, { force: true });
  }
});

test("holds the process to its memory", async () => {
  const resident = await failureOf(
    index(chunksOf(layer), describe(layer), { limits: { layerMemoryBytesMax: 10_000_000 } }),
  );
  expect(resident.code).toBe("limit_exceeded");
  expect(resident.message).toContain("memory");
  // From a pipe zstd does not know that the window need not be as large as it was told: inflating takes 128 MiB.
  const zstd = Bun.spawn(["zstd", "-q", "-c", "--long=27"], { stdin: tar, stdout: "pipe" });
  const wide = Buffer.from(await new Response(zstd.stdout).arrayBuffer());
  const mapped = await failureOf(
    index(chunksOf(wide), describe(wide), { limits: { layerMemoryBytesMax: 120_000_000 } }),
  );
  expect(mapped.code).toBe("limit_exceeded");
  expect(mapped.message).toContain("no memory");
  expect((await index(chunksOf(wide), describe(wide))).tarSizeBytes).toBe(tar.length);
});

test("holds the process to its time on a core", async () => {
  const slow = await failureOf(
    index(chunksOf(layer), describe(layer), { limits: { layerCpuSecondsMax: 0.01 } }),
  );
  expect(slow.code).toBe("limit_exceeded");
  expect(slow.message).toContain("layer_cpu_seconds_max of 0.01");
});
