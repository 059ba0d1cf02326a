import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { chunkedLayer } from "../../src/index/chunked-layer.test-kit.ts";
import { indexBytes } from "../../src/index/layer.test-kit.ts";
import { makeTar, SeededRandom } from "../../src/index/tar.test-kit.ts";
import { LayerBlob } from "../../src/native/blob.ts";
import { Engine } from "../../src/native/engine.ts";
import { cleanEnvironment, run, tryRun } from "../../src/std/spawn.ts";
import type { Campaign, CampaignResult } from "./campaign.ts";
import { indexTable } from "./chunk-target.ts";
import { compressed, type LayerKind, layerKinds, mediaTypeOf, someTar, spannedTar } from "./layer-maker.ts";

const root = join(import.meta.dir, "../..");
const sources = join(root, "native/src");
const harness = join(import.meta.dir, "native");
const out = join(root, "dist/fuzz/native");

/** The C files, by the target that feeds them: span files and decoders, the indexer's decompressor, bitmaps, all together. */
export const nativeTargets = ["decode", "points", "map", "engine"] as const;

const sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
const flags = [
  "-std=gnu11",
  "-O1",
  "-g",
  "-pthread",
  "-D_GNU_SOURCE",
  "-D_FILE_OFFSET_BITS=64",
  "-fno-omit-frame-pointer",
  "-fno-strict-aliasing",
  ...sanitizers,
];
const hangMs = 30_000;
const options = "abort_on_error=1:allocator_may_return_null=1:max_allocation_size_mb=512:detect_leaks=1";

/** Compiles the C half with the sanitizers, when a source is newer than what is there. Returns the program. */
export async function buildNativeFuzzer(): Promise<string> {
  const program = join(out, "fuzz");
  const tested = (await readdir(sources))
    .filter((name) => name.endsWith(".c"))
    .map((name) => join(sources, name));
  const driving = (await readdir(harness))
    .filter((name) => name.endsWith(".c"))
    .map((name) => join(harness, name));
  const inputs = [
    ...tested,
    ...driving,
    join(sources, "oci.h"),
    join(sources, "spanfile.h"),
    join(sources, "splice.h"),
    join(harness, "fuzz.h"),
  ];
  if (
    existsSync(program) &&
    inputs.every((path) => Bun.file(path).lastModified <= Bun.file(program).lastModified)
  )
    return program;
  await mkdir(out, { recursive: true });
  const work = await mkdtemp(join(out, "build-"));
  try {
    const objectOf = (path: string): string =>
      join(work, `${path.slice(root.length + 1).replaceAll("/", "_")}.o`);
    const compile = (path: string): Promise<unknown> => {
      const traced = tested.includes(path) ? ["-fsanitize-coverage=trace-pc"] : [];
      return run(["gcc", ...flags, ...traced, "-c", path, "-o", objectOf(path)]);
    };
    const all = [...tested, ...driving];
    await Promise.all(
      [0, 1].map(async (lane) => {
        for (const path of all.filter((_, at) => at % 2 === lane)) await compile(path);
      }),
    );
    const linked = join(work, "fuzz");
    await run([
      "gcc",
      "-pthread",
      ...sanitizers,
      "-o",
      linked,
      ...all.map(objectOf),
      "-lfuse3",
      "-lz",
      "-ldeflate",
      "-lzstd",
    ]);
    await run(["mv", linked, program]);
    return program;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Fuzzes one target of the native harness until the time is over or a sanitizer, or a promise, ends the process. */
export async function runNativeCampaign(campaign: Campaign): Promise<CampaignResult> {
  const { target, seed, seconds, findings } = campaign;
  const program = await buildNativeFuzzer();
  const folder = await mkdtemp(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "oci-node-fuzz-"));
  try {
    await mkdir(join(folder, "seeds"));
    await writeSeeds(target, join(folder, "seeds"));
    const count = campaign.count ?? Number.MAX_SAFE_INTEGER;
    const argv = [program, target, String(seed), String(seconds), String(count), folder];
    const env = { ...cleanEnvironment, ASAN_OPTIONS: options, UBSAN_OPTIONS: "print_stacktrace=1" };
    const result = await tryRun(argv, { env, timeoutMs: seconds * 1000 + hangMs });
    if (result.exitCode === 0) return { target, executions: Number(result.stdout) };
    await mkdir(join(findings, target), { recursive: true });
    const path = join(findings, target, `seed-${seed}`);
    await writeFile(path, await currentInput(folder));
    const message = result.stderr.trim().slice(0, 4000) || `it ended with ${result.exitCode}`;
    await writeFile(`${path}.txt`, `${message}\n\n${program} ${target} --replay ${path} $(mktemp -d)\n`);
    return { target, executions: 0, finding: { message, path } };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function currentInput(folder: string): Promise<Uint8Array> {
  const current = await readFile(join(folder, "current")).catch(() => Buffer.alloc(8));
  return current.subarray(8, 8 + Number(current.readBigUInt64LE(0)));
}

/** Sound inputs to begin with: small layers of every kind, with their span files, and bitmaps of blobs that were filled. */
async function writeSeeds(target: string, folder: string): Promise<void> {
  const random = new SeededRandom(5);
  const scratch = await mkdtemp(join(tmpdir(), "oci-node-fuzz-seeds-"));
  try {
    const tars: [LayerKind, Buffer][] = layerKinds.flatMap((kind) => [
      [kind, someTar(random, 3_000)],
      [kind, someTar(random, 300_000)],
    ]);
    tars.push(["gzip", spannedTar(random)]);
    for (const [kind, tar] of tars) {
      const layer = compressed(tar, kind);
      const name = `${kind}-${tar.length}`;
      const out = { spanPath: join(scratch, name), tocPath: join(scratch, "toc") };
      await indexBytes(layer, out, { mediaType: mediaTypeOf(kind) });
      const inflater = Buffer.from([kind.startsWith("gzip") ? 0 : 1]);
      if (target !== "points") await writeSeed(target, folder, out.spanPath, layer);
      else if (kind !== "none") await writeFile(join(folder, name), Buffer.concat([inflater, layer]));
    }
    if (target === "points") return;
    for (const format of ["estargz", "zstdChunked"] as const) {
      const member = makeTar([{ name: "f", data: random.bytes(20_000) }], 0);
      const { blob, annotations } = chunkedLayer(format, [member], {
        chunkBytes: 4096,
        memberBytesMin: 9000,
      });
      const out = { spanPath: join(scratch, format), tocPath: join(scratch, "toc") };
      await indexTable(blob, { ...annotations }, out, random);
      await writeSeed(target, folder, out.spanPath, blob);
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The file that `fuzz_layer_of` takes apart. */
async function writeSeed(target: string, folder: string, spanPath: string, layer: Buffer): Promise<void> {
  const spans = await readFile(spanPath);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(spans.length);
  const rest = target === "map" ? await filledMap(spanPath, layer) : layer;
  await writeFile(join(folder, basename(spanPath)), Buffer.concat([length, spans, rest]));
}

async function filledMap(spanPath: string, layer: Buffer): Promise<Buffer> {
  const mapPath = `${spanPath}.map`;
  const blob = LayerBlob.open({ spanPath, cachePath: `${spanPath}.cache`, mapPath });
  const stream = Engine.get().streamOpen(blob);
  await stream.push(layer);
  await stream.end();
  await blob.release();
  return await readFile(mapPath);
}
