import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { IndexError } from "../../index/error.ts";
import { defaultIndexLimits } from "../../index/limits.ts";
import { type TarMember, TarReader } from "../../index/tar-reader.ts";
import { errnoOf } from "../../std/error.ts";
import { formatSize } from "../../std/size.ts";
import type { RuntimeError } from "../error.ts";
import { CodeTree, codeEntriesMax, refused, refusedEntry } from "./tree.ts";

/** Header blocks and padding that an entry may bring beside its contents, on average. */
const overheadBytes = 2048;
const executable = 0o111;
/** Small files that are written at once. */
const atOnceMax = 16;
/** A path needs no more, and nothing else of such a header counts. */
const paxBytesMax = 64 * 1024;
const readerLimits = { ...defaultIndexLimits, paxBytesMax, sparseSegmentsMax: 1 };
const typeNames: Readonly<Record<string, string>> = {
  "1": "a hard link",
  "3": "a device",
  "4": "a device",
  "6": "a named pipe",
};

/** Where an archive's tree is made. Paths are relative and clean; what lies above a path was made before it. */
export interface CodeSink {
  directory(path: string): Promise<void>;
  /** A file of which all bytes are here; several may be made at once. */
  whole(path: string, isExecutable: boolean, bytes: Uint8Array): Promise<void>;
  /** A file whose bytes come piece by piece. */
  begin(path: string, isExecutable: boolean): Promise<CodeFileSink>;
  /** Called when all else is there. */
  link(path: string, target: string): Promise<void>;
}

export interface CodeFileSink {
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export interface CodeSize {
  /** What the files hold, and 4 KiB for each entry. */
  readonly diskBytes: number;
  readonly entries: number;
}

interface PendingFile {
  readonly path: string;
  readonly isExecutable: boolean;
  /** In the inflated stream. */
  readonly start: number;
  readonly end: number;
}

type Made = { readonly directory: string } | { readonly file: PendingFile };

/**
 * Reads a gzip'd tar archive (ustar, with pax or GNU headers for long names) of hostile origin, and makes its tree in a
 * sink; without one it only looks whether that could be done. Nothing but regular files, directories and symbolic links
 * that stay inside is taken; owners, times, setuid bits and extended attributes are not.
 *
 * Bounds: `unpackedBytesMax` for the contents, as much again of headers as the entries may have, 50,000 entries.
 *
 * @throws RuntimeError `code`; what the source or the sink throws
 */
export async function readCodeArchive(
  source: AsyncIterable<Uint8Array>,
  unpackedBytesMax: number,
  sink?: CodeSink,
): Promise<CodeSize> {
  const tree = new CodeTree();
  const made: Made[] = [];
  let contentBytes = 0;
  let diskBytes = 0;
  let entries = 0;
  const reader = new TarReader(readerLimits, (member) => {
    contentBytes += member.size;
    if (contentBytes > unpackedBytesMax) throw tooLarge(unpackedBytesMax);
    entries += 1;
    if (entries > codeEntriesMax) throw refused(`it has more than ${codeEntriesMax} entries`);
    diskBytes += 4096 + Math.ceil(member.size / 4096) * 4096;
    made.push(...take(tree, member));
  });
  const files = new FileWriter(sink);
  try {
    let inflatedBytes = 0;
    for await (const chunk of inflated(source)) {
      const start = inflatedBytes;
      inflatedBytes += chunk.length;
      if (inflatedBytes > unpackedBytesMax + codeEntriesMax * overheadBytes) throw tooLarge(unpackedBytesMax);
      push(reader, chunk);
      await files.goOn(chunk, start);
      for (const each of made.splice(0)) {
        if ("file" in each) await files.begin(each.file, chunk, start);
        else await sink?.directory(each.directory);
      }
      if (reader.ended) break;
    }
    await files.end();
  } finally {
    await files.leave();
  }
  if (!reader.ended) throw refused("it is cut short, or no tar archive");
  for (const { path, target } of tree.links()) await sink?.link(path, target);
  return { diskBytes, entries };
}

async function* inflated(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const gunzip = createGunzip();
  // What goes wrong there comes out of the stream.
  const feeding = pipeline(Readable.from(source), gunzip).catch(() => undefined);
  try {
    for await (const chunk of gunzip) yield chunk;
  } catch (error) {
    if (errnoOf(error)?.startsWith("Z_") !== true) throw error;
    throw refused("it is not gzip, or damaged", error);
  } finally {
    gunzip.destroy();
    await feeding;
  }
}

function push(reader: TarReader, chunk: Uint8Array): void {
  try {
    reader.push(chunk);
  } catch (error) {
    if (error instanceof IndexError) throw refused(error.message, error);
    throw error;
  }
}

function tooLarge(bytesMax: number): RuntimeError {
  return refused(`unpacked it is larger than ${formatSize(bytesMax)}`);
}

function take(tree: CodeTree, member: TarMember): Made[] {
  const { name, type, size, segments } = member;
  if (segments !== undefined) throw refusedEntry(name, "it is a sparse file");
  const added =
    type === "0"
      ? tree.add(name, "file")
      : type === "5"
        ? tree.add(name, "directory")
        : type === "2"
          ? tree.add(name, "link", member.link)
          : undefined;
  if (added === undefined) {
    if (type === "5") return [];
    throw refusedEntry(name, `it is ${typeNames[type] ?? "neither a file, a directory nor a symbolic link"}`);
  }
  const directories = added.parents.map((directory) => ({ directory }));
  if (type === "2") return directories;
  if (type === "5") return [...directories, { directory: added.path }];
  const isExecutable = (member.mode & executable) !== 0;
  const start = member.dataOffset;
  return [...directories, { file: { path: added.path, isExecutable, start, end: start + size } }];
}

/** Passes files' bytes on as they come: whole ones side by side, of long ones one after the other. */
class FileWriter {
  readonly #sink: CodeSink | undefined;
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;
  /** It began in an earlier chunk; nothing else can begin before it ends. */
  #long: { readonly file: PendingFile; readonly to: CodeFileSink } | undefined;

  constructor(sink: CodeSink | undefined) {
    this.#sink = sink;
  }

  async begin(file: PendingFile, chunk: Uint8Array, chunkStart: number): Promise<void> {
    if (this.#sink === undefined) return;
    const { path, isExecutable, start, end } = file;
    if (end > chunkStart + chunk.length) {
      this.#long = { file, to: await this.#sink.begin(path, isExecutable) };
      await this.goOn(chunk, chunkStart);
      return;
    }
    const bytes = start === end ? new Uint8Array() : chunk.subarray(start - chunkStart, end - chunkStart);
    const writing = this.#sink.whole(path, isExecutable, bytes).catch((error: unknown) => {
      this.#failure ??= { error };
    });
    this.#running.add(writing);
    void writing.then(() => this.#running.delete(writing));
    if (this.#running.size >= atOnceMax) await Promise.race(this.#running);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Writes what of a chunk is the long file's. */
  async goOn(chunk: Uint8Array, chunkStart: number): Promise<void> {
    if (this.#long === undefined) return;
    const { file, to } = this.#long;
    const from = Math.max(0, file.start - chunkStart);
    const bytes = chunk.subarray(Math.min(from, chunk.length), Math.min(chunk.length, file.end - chunkStart));
    if (bytes.length > 0) await to.write(bytes);
    if (file.end <= chunkStart + chunk.length) await this.#closeLong();
  }

  async end(): Promise<void> {
    await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Leaves nothing open, whatever happened. */
  async leave(): Promise<void> {
    await Promise.all(this.#running);
    await this.#closeLong();
  }

  async #closeLong(): Promise<void> {
    const long = this.#long;
    this.#long = undefined;
    await long?.to.close();
  }
}
