import { gzipSync } from "node:zlib";
import { defaultIndexLimits } from "./limits.ts";
import { header, padded } from "./tar.test-kit.ts";
import { type TarMember, TarReader } from "./tar-reader.ts";

export type ChunkedFormat = "estargz" | "zstdChunked";

/** A layer as converters for lazy pulling write it, with what the manifest says of it. */
export interface ChunkedLayer {
  readonly blob: Buffer;
  readonly annotations: Readonly<Record<string, string>>;
  /** What the whole inflates to. */
  readonly tar: Buffer;
}

export interface ChunkedOptions {
  /** Bytes of a chunk at most. */
  readonly chunkBytes?: number;
  /** Chunks go on in one gzip member until it holds so many bytes (eStargz only). */
  readonly memberBytesMin?: number;
  /** Change the table before it is written: a hostile or broken converter. */
  readonly edit?: (entries: Record<string, unknown>[]) => void;
  readonly editText?: (json: Buffer) => void;
}

const sha256 = (bytes: Uint8Array): string =>
  `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
const types = {
  "0": "reg",
  "1": "hardlink",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "dir",
  "6": "fifo",
};

type Facts = TarMember & { readonly xattrs: readonly (readonly [name: string, value: string])[] };

/**
 * Writes an eStargz or zstd:chunked layer out of members of a tar, each given as an archive of its own without an end.
 * Contents begin a new gzip member or zstd frame, which goes on with padding and headers up to the next contents, as the
 * stargz-snapshotter writes both formats.
 */
export function chunkedLayer(
  format: ChunkedFormat,
  members: readonly Uint8Array[],
  options: ChunkedOptions = {},
): ChunkedLayer {
  const writer = new ChunkedWriter(format, options);
  for (const member of members) writer.add(Buffer.from(member));
  return writer.finish();
}

class ChunkedWriter {
  readonly #format: ChunkedFormat;
  readonly #options: ChunkedOptions;
  readonly #blob: Buffer[] = [];
  readonly #tar: Buffer[] = [];
  readonly #entries: Record<string, unknown>[] = [];
  #offset = 0;
  /** What the member that is open holds. */
  #open: Buffer[] = [];
  #openBytes = 0;
  /** The chunks in it: where the first began. */
  #chunksFrom = -1;

  constructor(format: ChunkedFormat, options: ChunkedOptions) {
    this.#format = format;
    this.#options = options;
  }

  add(member: Buffer): void {
    const facts = read(member);
    const data = member.subarray(facts.dataOffset, facts.dataOffset + facts.dataBytes);
    this.#write(member.subarray(0, facts.dataOffset));
    const entry = this.#entry(facts, data);
    this.#entries.push(entry);
    const chunkBytes = this.#options.chunkBytes ?? 4 * 1024 * 1024;
    for (let at = 0; at < data.length; at += chunkBytes) {
      const chunk = data.subarray(at, at + chunkBytes);
      const place = this.#chunk(chunk);
      const more = at > 0 || chunk.length < data.length ? { chunkSize: chunk.length, chunkOffset: at } : {};
      const described = { ...place, ...more, chunkDigest: sha256(chunk) };
      if (at === 0) Object.assign(entry, described);
      else this.#entries.push({ name: entry["name"], type: "chunk", ...described });
    }
    this.#write(member.subarray(facts.dataOffset + facts.dataBytes));
  }

  finish(): ChunkedLayer {
    const estargz = this.#format === "estargz";
    if (!estargz) this.#write(Buffer.alloc(1024));
    this.#close();
    this.#options.edit?.(this.#entries);
    const json = Buffer.from(JSON.stringify({ version: 1, entries: this.#entries }, null, "\t"));
    this.#options.editText?.(json);
    const annotations = estargz ? this.#endEstargz(json) : this.#endZstd(json);
    return { blob: Buffer.concat(this.#blob), annotations, tar: Buffer.concat(this.#tar) };
  }

  #endEstargz(json: Buffer): Record<string, string> {
    const tocOffset = this.#offset;
    this.#write(header({ name: "stargz.index.json", type: "0", data: json }));
    this.#write(padded(json));
    this.#write(Buffer.alloc(1024));
    this.#close();
    const extra = Buffer.from(`SG\x16\0${tocOffset.toString(16).padStart(16, "0")}STARGZ`, "latin1");
    const start = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, extra.length, 0]);
    this.#blob.push(start, extra, Buffer.from([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]));
    return { "containerd.io/snapshot/stargz/toc.digest": sha256(json) };
  }

  #endZstd(json: Buffer): Record<string, string> {
    const packed = Buffer.from(Bun.zstdCompressSync(json));
    const position = `${this.#offset + 8}:${packed.length}:${json.length}:1`;
    this.#blob.push(skippable(packed), skippable(Buffer.alloc(56, "GNUlInUx")));
    const key = "io.github.containers.zstd-chunked.manifest";
    return { [`${key}-checksum`]: sha256(packed), [`${key}-position`]: position };
  }

  #entry(member: Facts, data: Buffer): Record<string, unknown> {
    const xattrs = member.xattrs.map(([name, value]) => [
      goText(name),
      Buffer.from(value, "latin1").toString("base64"),
    ]);
    const device = member.type === "3" || member.type === "4";
    return {
      name: goText(member.name),
      type: types[member.type as keyof typeof types],
      size: data.length,
      modtime: goTime(member, this.#format === "zstdChunked"),
      ...(member.link === "" ? {} : { linkName: goText(member.link) }),
      mode: member.mode,
      uid: member.uid,
      gid: member.gid,
      NumLink: 0,
      ...(device ? { devMajor: member.deviceMajor, devMinor: member.deviceMinor } : {}),
      ...(xattrs.length === 0 ? {} : { xattrs: Object.fromEntries(xattrs) }),
      ...(data.length === 0 ? {} : { digest: sha256(data) }),
    };
  }

  /** Begins a chunk, in a new member unless the open one is too small yet. */
  #chunk(bytes: Buffer): { offset: number; innerOffset?: number } {
    const shares = this.#chunksFrom >= 0 && this.#openBytes < (this.#options.memberBytesMin ?? 0);
    if (!shares) {
      this.#close();
      this.#chunksFrom = this.#offset;
    }
    const innerOffset = this.#openBytes;
    this.#write(bytes);
    return { offset: this.#chunksFrom, ...(innerOffset === 0 ? {} : { innerOffset }) };
  }

  #write(bytes: Buffer): void {
    this.#open.push(bytes);
    this.#openBytes += bytes.length;
  }

  #close(): void {
    const bytes = Buffer.concat(this.#open);
    this.#open = [];
    this.#openBytes = 0;
    this.#chunksFrom = -1;
    if (bytes.length === 0) return;
    const packed = this.#format === "estargz" ? gzipSync(bytes) : Buffer.from(Bun.zstdCompressSync(bytes));
    this.#tar.push(bytes);
    this.#blob.push(packed);
    this.#offset += packed.length;
  }
}

/** The one member of a tar, with its extended attributes. */
function read(tar: Buffer): Facts {
  const members: Facts[] = [];
  const reader = new TarReader(defaultIndexLimits, (member) => {
    members.push({ ...member, xattrs: [...member.pax.withPrefix("SCHILY.xattr.")] });
  });
  reader.push(tar);
  const [member] = members;
  if (member === undefined || members.length > 1) throw new Error(`${members.length} members, not one`);
  return member;
}

/** Text as Go's JSON writes it: what is not UTF-8 becomes U+FFFD. */
function goText(latin1: string): string {
  return Buffer.from(latin1, "latin1").toString("utf8");
}

function goTime({ mtimeSeconds, mtimeNanos }: Facts, withNanos: boolean): string {
  const seconds = withNanos || mtimeNanos < 500_000_000 ? mtimeSeconds : mtimeSeconds + 1;
  if (!withNanos && seconds === 0) return "";
  const fraction = `.${String(mtimeNanos).padStart(9, "0")}`.replace(/\.?0+$/, "");
  return new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, `${withNanos ? fraction : ""}Z`);
}

/** A frame that zstd passes over (RFC 8878, 3.1.2). */
function skippable(bytes: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x184d2a50, 0);
  head.writeUInt32LE(bytes.length, 4);
  return Buffer.concat([head, bytes]);
}
