import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { constants, gzipSync } from "node:zlib";
import { checkLayer, failureOf, indexBytes, ociTar, sha256 } from "./layer.test-kit.ts";
import { indexLayerStream } from "./layer-index.ts";
import { defaultIndexLimits, limitName } from "./limits.ts";
import { type KitMember, makeTar, SeededRandom } from "./tar.test-kit.ts";
import { spanFile } from "./types.ts";

let directory: string;
let out: { spanPath: string; tocPath: string };
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-layer-"));
  out = { spanPath: join(directory, "span"), tocPath: join(directory, "toc") };
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

/** Files, folders and links by chance, about `bytes` of data in all. */
function randomTar(seed: number, bytes: number): { tar: Buffer; files: Map<string, Buffer> } {
  const random = new SeededRandom(seed);
  const pool = random.bytes(1024 * 1024);
  const members: KitMember[] = [];
  const files = new Map<string, Buffer>();
  for (let total = 0, at = 0; total < bytes; at += 1) {
    const name = `${random.pick(["usr/lib", "etc", "opt/app/node_modules"])}/${at}-${"n".repeat(random.next(60))}`;
    const kind = random.next(20);
    if (kind === 0) members.push({ name: `${name}/`, type: "5", mode: 0o755 });
    else if (kind === 1) members.push({ name, type: "2", link: "../target" });
    else {
      const length = random.pick([
        0,
        1,
        511,
        512,
        4095,
        4096,
        4097,
        random.next(50_000),
        random.next(900_000),
      ]);
      const from = random.next(pool.length - length);
      const data = pool.subarray(from, from + length);
      const pax = random.next(4) === 0 ? { pax: [["mtime", `${random.next(1e9)}.25`] as const] } : {};
      members.push({ name, data, mtime: random.next(2 ** 31), ...pax });
      files.set(name, data);
      total += length;
    }
  }
  return { tar: makeTar(members), files };
}

async function check(layer: Buffer, tar: Buffer, files: Map<string, Buffer>, mediaType = `${ociTar}+gzip`) {
  const indexed = await indexBytes(layer, out, { mediaType });
  const checked = await checkLayer(layer, tar, out, indexed);
  let seen = 0;
  let end = 0;
  for (const entry of checked.entries) {
    const data = files.get(entry.path);
    if (entry.type !== "file" || data === undefined) continue;
    seen += 1;
    expect(entry.size).toBe(data.length);
    expect(entry.blobOffset).toBe(data.length === 0 ? -1 : end);
    if (data.length === 0) continue;
    expect(data.equals(checked.blob.subarray(entry.blobOffset, entry.blobOffset + data.length))).toBe(true);
    end = Math.ceil((end + data.length) / 4096) * 4096;
  }
  expect(seen).toBe(files.size);
  expect(indexed.blobSizeBytes).toBe(end);
  return checked;
}

/** The same bytes as several gzip members, as `cat a.gz b.gz` and parallel compressors make them. */
function gzipMembers(bytes: Buffer, memberBytes: number, level = 6): Buffer {
  const members: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += memberBytes) {
    members.push(gzipSync(bytes.subarray(at, at + memberBytes), { level }));
  }
  return Buffer.concat(members);
}

/** Compresses with the `zstd` program. */
async function zstd(bytes: Buffer, ...options: string[]): Promise<Buffer> {
  const child = Bun.spawn(["zstd", "-q", "-c", ...options], { stdin: bytes, stdout: "pipe" });
  return Buffer.from(await new Response(child.stdout).arrayBuffer());
}

async function zstdFrames(bytes: Buffer, frameBytes: number): Promise<Buffer[]> {
  const frames: Promise<Buffer>[] = [];
  for (let at = 0; at < bytes.length; at += frameBytes) {
    frames.push(Bun.zstdCompress(bytes.subarray(at, at + frameBytes)));
  }
  return Promise.all(frames);
}

function skippableFrame(content: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x184d2a53, 0);
  head.writeUInt32LE(content.length, 4);
  return Buffer.concat([head, content]);
}

const { tar, files } = randomTar(1, 8_000_000);

test.each([
  ["level 6", { level: 6 }],
  ["level 9", { level: 9 }],
  ["stored blocks", { level: 0 }],
  ["Huffman codes only", { strategy: constants.Z_HUFFMAN_ONLY }],
  ["fixed codes", { strategy: constants.Z_FIXED }],
] as const)("cuts a gzip layer of %s into spans that inflate alone", async (_, options) => {
  const { file } = await check(gzipSync(tar, options), tar, files);
  expect(file.header.kind).toBe(spanFile.kinds.gzip);
  expect(file.spans.length).toBeGreaterThanOrEqual(3);
  for (const span of file.spans.slice(0, -1)) {
    expect(span.tarLength).toBeGreaterThanOrEqual(2 ** 21);
    expect(span.tarLength).toBeLessThan(2 ** 22 + 2 ** 20);
  }
});

test.each([["-1"], ["-9"]])("cuts what gzip %s makes", async (level) => {
  const child = Bun.spawn(["gzip", "-c", level], { stdin: tar, stdout: "pipe" });
  const { file } = await check(Buffer.from(await new Response(child.stdout).arrayBuffer()), tar, files);
  expect(file.spans.length).toBeGreaterThanOrEqual(3);
});

test.each([
  ["text", 60_000, 4],
  ["small texts", 3_000, 4],
  ["bytes that do not compress", 60_000, 1],
] as const)(
  "stores at most 2 %% of the layer for the places to begin at, of %s",
  async (_, fileBytes, words) => {
    const random = new SeededRandom(9);
    const pool = random.bytes(1024 * 1024);
    const vocabulary = Array.from(
      { length: 900 },
      (__, at) => `${at.toString(36)}${"etaoinshrdlu".slice(at % 12)} `,
    );
    const text = (): Buffer =>
      words === 1
        ? pool.subarray(random.next(1000)).subarray(0, fileBytes)
        : Buffer.from(Array.from({ length: fileBytes / 7 }, () => random.pick(vocabulary)).join(""));
    const members = Array.from({ length: 24_000_000 / fileBytes }, (__, at) => ({
      name: `t/${at}`,
      data: text(),
    }));
    const plain = makeTar(members);
    const layer = gzipSync(plain);
    const indexed = await indexBytes(layer, out);
    const { file } = await checkLayer(layer, plain, out, indexed);
    expect(file.spans.length).toBeGreaterThan(4);
    expect(indexed.spanSizeBytes / layer.length).toBeLessThan(0.02);
    for (const span of file.spans) expect(span.tarLength).toBeLessThan(2 ** 22 + 2 ** 20);
  },
);

test("keeps a layer that is one deflate block, as some fast compressors make them, as one span", async () => {
  const { file } = await check(gzipSync(tar, { level: 1 }), tar, files);
  expect(file.spans.length).toBe(1);
});

test("begins spans inside of bytes, with windows, and shares that byte", async () => {
  const { file } = await check(gzipSync(tar), tar, files);
  expect(file.spans.some((span) => span.bits > 0)).toBe(true);
  for (const [at, span] of file.spans.entries()) {
    const before = file.spans[at - 1];
    if (before === undefined) continue;
    expect(span.compOffset).toBe(before.compOffset + before.compLength - (span.bits > 0 ? 1 : 0));
    expect(span.window.length).toBe(32768);
  }
});

test.each([[64 * 1024], [1_000_000], [3_000_000], [7_000_000]])(
  "cuts a gzip layer of members of %d bytes",
  async (memberBytes) => {
    const { file } = await check(gzipMembers(tar, memberBytes), tar, files);
    if (memberBytes === 65536) expect(file.spans.every((span) => span.memberStart)).toBe(true);
  },
);

test("cuts gzip layers of random contents, whatever the seed", async () => {
  for (let seed = 10; seed < 16; seed += 1) {
    const random = new SeededRandom(seed);
    const made = randomTar(seed, 5_000_000);
    const layer = gzipMembers(made.tar, 500_000 + random.next(4_000_000), 1 + random.next(9));
    await check(layer, made.tar, made.files);
  }
});

test("passes over empty members, zero padding and garbage behind a gzip layer", async () => {
  const layer = gzipSync(tar);
  const empty = gzipSync(Buffer.alloc(0));
  await check(Buffer.concat([empty, empty, layer, empty]), tar, files);
  await check(Buffer.concat([layer, Buffer.alloc(5000)]), tar, files);
  await check(Buffer.concat([layer, Buffer.from("trailing garbage")]), tar, files);
  await check(Buffer.concat([layer, Buffer.from([0x1f, 0x00, 0x8b])]), tar, files);
});

test("cuts a layer that is a plain tar into pieces", async () => {
  const { file } = await check(tar, tar, files, ociTar);
  expect(file.header.kind).toBe(spanFile.kinds.plain);
  expect(file.spans.slice(0, -1).every((span) => span.tarLength === 2 ** 21)).toBe(true);
});

test("goes by the bytes and not by the media type, and takes Docker's types", async () => {
  const gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
  expect((await check(tar, tar, files, gzip)).file.header.kind).toBe(spanFile.kinds.plain);
  expect((await check(gzipSync(tar), tar, files, ociTar)).file.header.kind).toBe(spanFile.kinds.gzip);
  const zstdLayer = Buffer.from(await Bun.zstdCompress(tar));
  const foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
  expect((await check(zstdLayer, tar, files, foreign)).file.header.kind).toBe(spanFile.kinds.zstdStream);
});

test("cuts a zstd layer of one big frame by its tar bytes", async () => {
  const layer = await zstd(tar);
  const { file } = await check(layer, tar, files, `${ociTar}+zstd`);
  expect(file.header.kind).toBe(spanFile.kinds.zstdStream);
  expect(file.spans.slice(0, -1).every((span) => span.tarLength === 2 ** 21)).toBe(true);
});

test.each([[40_000], [1_500_000], [3_000_000]])(
  "cuts a zstd layer of frames of %d bytes at frame ends",
  async (frameBytes) => {
    const layer = Buffer.concat(await zstdFrames(tar, frameBytes));
    const { file } = await check(layer, tar, files, `${ociTar}+zstd`);
    expect(file.header.kind).toBe(spanFile.kinds.zstdFrames);
    for (const span of file.spans.slice(0, -1)) {
      expect(span.memberStart).toBe(true);
      expect(span.tarLength).toBeGreaterThanOrEqual(2 ** 21);
      expect(span.tarLength).toBeLessThan(2 ** 21 + frameBytes);
    }
  },
);

test("passes over skippable frames before, between and behind; the last span does not fetch them", async () => {
  const frames = await zstdFrames(tar, 700_000);
  const skippable = skippableFrame(Buffer.alloc(3000, 0x28));
  const between = frames.flatMap((frame) => [skippable, frame]);
  const layer = Buffer.concat([...between, skippable, skippableFrame(Buffer.alloc(0))]);
  const { file } = await check(layer, tar, files, `${ociTar}+zstd`);
  expect(file.header.kind).toBe(spanFile.kinds.zstdFrames);
  const last = file.spans.at(-1);
  expect((last?.compOffset ?? 0) + (last?.compLength ?? 0)).toBe(layer.length - skippable.length - 8);
});

test("gives the same files however the layer is cut into chunks", async () => {
  const small = randomTar(3, 150_000);
  for (const layer of [
    gzipMembers(small.tar, 100_000),
    Buffer.concat(await zstdFrames(small.tar, 100_000)),
  ]) {
    const sums = new Set<string>();
    for (const chunkBytes of [1, 3, 4096, 1 << 20]) {
      const indexed = await indexBytes(layer, out, { chunkBytes });
      sums.add(indexed.spanSha256 + sha256(await Bun.file(out.tocPath).bytes()));
    }
    expect(sums.size).toBe(1);
  }
});

test("takes layers that are empty or hold an empty archive", async () => {
  const end = Buffer.alloc(1024);
  await check(gzipSync(end), end, new Map());
  await check(gzipSync(Buffer.alloc(0)), Buffer.alloc(0), new Map());
  await check(end, end, new Map(), ociTar);
  await check(Buffer.alloc(0), Buffer.alloc(0), new Map(), ociTar);
});

test("refuses bytes that are not those of the digest, leaving no file behind", async () => {
  const layer = gzipSync(tar);
  const index = (digest: string, size: number, bytes: Buffer) =>
    failureOf(
      indexLayerStream(
        { digest, size, mediaType: `${ociTar}+gzip` },
        (async function* () {
          yield bytes;
        })(),
        out,
        defaultIndexLimits,
        new AbortController().signal,
      ),
    );
  const digest = `sha256:${sha256(layer)}`;
  const flipped = Buffer.from(layer);
  flipped[1000] = (flipped[1000] ?? 0) ^ 1;
  for (const [size, bytes] of [
    [layer.length, flipped],
    [layer.length, layer.subarray(0, -1)],
    [layer.length - 1, layer],
    [layer.length, gzipSync(Buffer.concat([tar, tar])).subarray(0, layer.length)],
  ] as const) {
    const { code, message } = await index(digest, size, bytes);
    expect(code).toBe("digest_mismatch");
    expect(message).toContain(digest);
  }
  expect((await index("sha512:00", 1, layer)).code).toBe("bad_layer");
  expect(await readdir(directory)).toEqual([]);
});

test.each([
  ["a truncated gzip layer", () => gzipSync(tar).subarray(0, -20)],
  ["a gzip layer without its trailer", () => gzipSync(tar).subarray(0, -1)],
  [
    "a gzip layer with a wrong checksum",
    () => Buffer.concat([gzipSync(tar).subarray(0, -8), Buffer.alloc(8, 1)]),
  ],
  ["a second member that is cut off", () => Buffer.concat([gzipSync(tar), gzipSync(tar).subarray(0, 500)])],
  ["a gzip header and nothing else", () => Buffer.from("1f8b08000000", "hex")],
  [
    "deflate data that make no sense",
    () => Buffer.concat([gzipSync(tar).subarray(0, 4000), Buffer.alloc(9000, 7)]),
  ],
  ["a truncated zstd layer", () => Buffer.from(Bun.zstdCompressSync(tar)).subarray(0, -7)],
  ["garbage behind a zstd layer", () => Buffer.concat([Bun.zstdCompressSync(tar), Buffer.from("garbage")])],
])("refuses %s", async (_, make) => {
  expect((await failureOf(indexBytes(make(), out))).code).toBe("bad_layer");
  expect(await readdir(directory)).toEqual([]);
});

test("refuses a broken tar in a sound layer, naming the entry", async () => {
  const { code, message } = await failureOf(indexBytes(gzipSync(tar.subarray(0, 3_000_000)), out));
  expect(code).toBe("bad_tar");
  expect(message).toMatch(/"(usr|etc|opt)/);
});

test("refuses what it cannot inflate, by name", async () => {
  const xz = Buffer.from("fd377a585a000004", "hex");
  for (const [bytes, mediaType, word] of [
    [xz, `${ociTar}+gzip`, "xz"],
    [Buffer.from("BZh91AY&SY"), ociTar, "bzip2"],
    [tar, "application/vnd.in-toto+json", "in-toto"],
    [tar, `${ociTar}+gzip+encrypted`, "encrypted"],
  ] as const) {
    const { code, message } = await failureOf(indexBytes(bytes, out, { mediaType }));
    expect(code).toBe("unsupported_compression");
    expect(message).toContain(word);
  }
});

test("stops bombs at the limits", async () => {
  const zeros = Buffer.alloc(40_000_000);
  const bomb = makeTar([{ name: "zeros", data: zeros }]);
  const limits = { ratioFreeBytes: 10_000_000, ratioMax: 200 };
  for (const layer of [gzipSync(bomb), Buffer.from(Bun.zstdCompressSync(bomb))]) {
    for (const [name, set] of [
      ["ratioMax", limits],
      ["tarBytesMax", { tarBytesMax: 20_000_000 }],
      ["blobBytesMax", { blobBytesMax: 20_000_000 }],
      ["tocBytesMax", { tocBytesMax: 50 }],
    ] as const) {
      const { code, message } = await failureOf(indexBytes(layer, out, { limits: set }));
      expect(code).toBe("limit_exceeded");
      expect(message).toContain(limitName(name));
    }
  }
  const { message } = await failureOf(indexBytes(gzipSync(bomb), out, { limits: { spanBytesMax: 2 ** 20 } }));
  expect(message).toContain("span_bytes_max");
  const long = await zstd(randomTar(5, 3_000_000).tar, "--long=31", "--ultra");
  const windowTooLarge = await failureOf(indexBytes(long, out));
  expect([windowTooLarge.code, windowTooLarge.message.includes("128 MiB")]).toEqual(["limit_exceeded", true]);
});

test("stops when the signal fires, even while the source is silent", async () => {
  const abort = new AbortController();
  let asked = 0;
  const silent = {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        asked += 1;
        if (asked === 1)
          return Promise.resolve({ done: false as const, value: gzipSync(tar).subarray(0, 1000) });
        queueMicrotask(() => abort.abort());
        return new Promise<never>(() => {});
      },
    }),
  };
  const layer = { digest: `sha256:${"0".repeat(64)}`, size: 1e9, mediaType: `${ociTar}+gzip` };
  const failure = await failureOf(indexLayerStream(layer, silent, out, defaultIndexLimits, abort.signal));
  expect(failure.code).toBe("cancelled");
  expect(await readdir(directory)).toEqual([]);
});

test("passes a failure of the source on as it is", async () => {
  const broken = (async function* () {
    yield gzipSync(tar).subarray(0, 1000);
    throw new Error("the registry went away");
  })();
  const layer = { digest: `sha256:${"0".repeat(64)}`, size: 1e9, mediaType: `${ociTar}+gzip` };
  const signal = new AbortController().signal;
  expect((await failureOf(indexLayerStream(layer, broken, out, defaultIndexLimits, signal))).message).toBe(
    "the registry went away",
  );
});
