import { gzipSync } from "node:zlib";
import { type ChunkedOptions, chunkedLayer } from "./chunked-layer.test-kit.ts";
import type { TestBlob } from "./image-index.test-kit.ts";
import { gnuLong, type KitMember, makeTar, type SeededRandom } from "./tar.test-kit.ts";
import { sparseFormats } from "./tar-sparse.test-kit.ts";
import { type TestEntry, type TestLayer, tarTestLayer } from "./tree-layers.test-kit.ts";

/** A layer as it lies in a registry, and the archive that it is the packing of. */
export interface PackedLayer {
  readonly blob: TestBlob;
  readonly tar: Buffer;
}

const oci = "application/vnd.oci.image.layer.v1.tar";
const foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const docker = "application/vnd.docker.image.rootfs.diff.tar";

const zstd = (bytes: Uint8Array): Buffer => Buffer.from(Bun.zstdCompressSync(new Uint8Array(bytes)));
const pieces = (bytes: Buffer, count: number): Buffer[] =>
  Array.from({ length: count }, (_, at) =>
    bytes.subarray(Math.floor((bytes.length * at) / count), Math.floor((bytes.length * (at + 1)) / count)),
  );

/** A frame that readers of zstd pass over (RFC 8878, 3.1.2). */
function skippable(text: string): Buffer {
  const frame = Buffer.alloc(8 + text.length);
  frame.writeUInt32LE(0x184d2a5a, 0);
  frame.writeUInt32LE(text.length, 4);
  frame.write(text, 8);
  return frame;
}

/** Three members, one of them empty, and what a careless builder left behind them. */
function gzipMembers(tar: Buffer): Buffer {
  const [first = tar, second = tar] = pieces(tar, 2);
  return Buffer.concat([gzipSync(first), gzipSync(""), gzipSync(second), Buffer.from("\0\0garbage")]);
}

function zstdFrames(tar: Buffer): Buffer {
  const frames = pieces(tar, 5).map(zstd);
  return Buffer.concat([
    skippable("first"),
    ...frames.flatMap((frame) => [frame, skippable("next")]),
    skippable(""),
  ]);
}

type Pack = (tar: Buffer) => Buffer;
const whole: Readonly<Record<string, readonly [mediaType: string, pack: Pack]>> = {
  gzip: [`${oci}+gzip`, (tar) => gzipSync(tar)],
  "Docker's gzip of three members": [`${docker}.gzip`, gzipMembers],
  "a nondistributable gzip": [`${foreign}+gzip`, (tar) => gzipSync(tar, { level: 1 })],
  "a plain tar": [oci, (tar) => tar],
  "a plain tar that is said to be gzip": [`${oci}+gzip`, (tar) => tar],
  "Docker's plain tar": [docker, (tar) => tar],
  "one zstd frame": [`${oci}+zstd`, zstd],
  "Docker's zstd, of frames with others between": [`${docker}.zstd`, zstdFrames],
  "gzip that is said to be zstd": [`${oci}+zstd`, (tar) => gzipSync(tar)],
};
const chunked: Readonly<Record<string, readonly ["estargz" | "zstdChunked", ChunkedOptions]>> = {
  eStargz: ["estargz", {}],
  "eStargz of small chunks": ["estargz", { chunkBytes: 3000 }],
  "eStargz of shared members": ["estargz", { chunkBytes: 3000, memberBytesMin: 20_000 }],
  "zstd:chunked": ["zstdChunked", { chunkBytes: 5000 }],
};

/** The ways in which a layer can be packed: without a table of its own, and with one, which holds names as JSON can. */
export const packings: readonly string[] = Object.keys(whole);
export const chunkedPackings: readonly string[] = Object.keys(chunked);

/** Packs a layer in one of {@link packings} or {@link chunkedPackings}; each entry in one of tar's dialects by chance. */
export function packLayer(layer: TestLayer, packing: string, random: SeededRandom): PackedLayer {
  const [format, options] = chunked[packing] ?? [];
  if (format === undefined) {
    const [mediaType, pack] = whole[packing] ?? [];
    if (mediaType === undefined || pack === undefined) throw new Error(`no such packing: ${packing}`);
    const tar = Buffer.concat([...layer.map((entry) => memberOf(entry, random, true)), Buffer.alloc(1024)]);
    return { blob: { bytes: pack(tar), mediaType }, tar };
  }
  // Converters rewrite sparse files, and eStargz's table has whole seconds.
  const entries = layer.map((entry) =>
    format === "estargz" ? { ...entry, mtime: [entry.mtime?.[0] ?? 1, 0] as const } : entry,
  );
  const members = entries.map((entry) => memberOf(entry, random, false));
  const made = chunkedLayer(format, members, options);
  const mediaType = `${oci}+${format === "estargz" ? "gzip" : "zstd"}`;
  return {
    blob: { bytes: made.blob, mediaType, annotations: made.annotations },
    tar: Buffer.concat([...members, Buffer.alloc(1024)]),
  };
}

/** One member without an end, in POSIX's format, in GNU's, or as a sparse file in one of four. */
function memberOf(entry: TestEntry, random: SeededRandom, sparse: boolean): Buffer {
  const dialect = random.next(4);
  if (dialect > 1 || Object.keys(entry.xattrs ?? {}).length > 0)
    return tarTestLayer([entry]).subarray(0, -1024);
  const content = Buffer.from(entry.content ?? "");
  if (dialect === 1 && sparse && entry.type === "file" && content.length > 4096 && entry.path.length < 90) {
    const sizeBytes = 30_000 + content.length;
    // A hole at the end is told by an empty segment there, and data lie in whole blocks, as GNU tar does it.
    const segments = [
      [4096, 1024],
      [20_000, content.length - 1024],
      [sizeBytes, 0],
    ] as const;
    return random.pick(Object.values(sparseFormats))(entry.path, sizeBytes, segments, content);
  }
  return gnuMember(entry, content);
}

const flags = { file: "0", hardlink: "1", symlink: "2", char: "3", block: "4", dir: "5", fifo: "6" } as const;

function gnuMember(entry: TestEntry, content: Buffer): Buffer {
  const { path, link = "" } = entry;
  const member: KitMember = {
    name: path.slice(0, 100),
    type: flags[entry.type],
    mode: entry.mode ?? (entry.type === "dir" ? 0o755 : 0o644),
    uid: entry.uid ?? 0,
    gid: entry.gid ?? 0,
    mtime: entry.mtime?.[0] ?? 1_700_000_000,
    link: link.slice(0, 100),
    format: "gnu",
    ...(entry.type === "file" && content.length > 0 ? { data: content } : {}),
    ...(entry.device === undefined ? {} : { deviceMajor: entry.device[0], deviceMinor: entry.device[1] }),
  };
  const long = [
    ...(path.length > 100 ? [gnuLong("L", path)] : []),
    ...(link.length > 100 ? [gnuLong("K", link)] : []),
  ];
  return makeTar([...long, member], 0);
}
