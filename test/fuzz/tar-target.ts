import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { IndexError } from "../../src/index/error.ts";
import { LayerEntries } from "../../src/index/layer-entries.ts";
import { decodeTocEntry, encodeTocEntry, type TocRecordBuffer } from "../../src/index/layer-toc-record.ts";
import { defaultIndexLimits, type IndexLimits } from "../../src/index/limits.ts";
import type { SeededRandom } from "../../src/index/tar.test-kit.ts";
import { TarReader } from "../../src/index/tar-reader.ts";
import type { TocEntry } from "../../src/index/types.ts";
import { tryRun } from "../../src/std/spawn.ts";
import { damageTar, randomTar } from "./tar-maker.ts";
import { Finding, promise, refused, type Target } from "./target.ts";

/** Small enough that random archives meet them. */
const limits: IndexLimits = {
  ...defaultIndexLimits,
  entriesMax: 64,
  blobBytesMax: 2 ** 36,
  sparseSegmentsMax: 64,
};

export interface TarReading {
  readonly entries: TocEntry[];
  readonly extents: (readonly [tarOffset: number, blobOffset: number, length: number])[];
  blobBytes: number;
}

/** Reads an archive that comes in pieces of these sizes, over and over. @throws IndexError */
export function readArchive(tar: Uint8Array, pieces: readonly number[]): TarReading {
  const reading: TarReading = { entries: [], extents: [], blobBytes: 0 };
  const sink = {
    addExtent: (from: number, to: number, length: number) => void reading.extents.push([from, to, length]),
  };
  const layer = new LayerEntries(limits, sink, (entry) => void reading.entries.push(entry));
  const reader = new TarReader(limits, (member) => layer.add(member));
  for (let at = 0, piece = 0; at < tar.length; piece += 1) {
    const length = pieces[piece % pieces.length] ?? 512;
    reader.push(tar.subarray(at, at + length));
    at += length;
  }
  reader.finish();
  reading.blobBytes = layer.blobBytes;
  return reading;
}

/** Damaged archives: refused by name, or read into entries that keep every promise, however the bytes arrive. */
export const tarTarget: Target = {
  name: "tar",
  make: (random) => {
    const tar = randomTar(random, random.next(3) > 0);
    return random.next(4) === 0 ? tar : damageTar(tar, random);
  },
  async run(tar, random) {
    const pieces = Array.from({ length: 7 }, () => 1 + random.next(1500));
    let whole: TarReading | undefined;
    let pieced: TarReading | undefined;
    const refusal = await refused(IndexError, () => {
      whole = readArchive(tar, [tar.length + 1]);
    });
    const other = await refused(IndexError, () => {
      pieced = readArchive(tar, pieces);
    });
    promise(
      refusal?.message === other?.message && Bun.deepEquals(whole, pieced),
      () => `in pieces of ${pieces} it is read differently: ${refusal?.message} | ${other?.message}`,
    );
    if (refusal !== undefined) {
      promise(["bad_tar", "limit_exceeded"].includes(refusal.code), () => `refused by ${refusal.code}`);
      promise(refusal.message.length < 1000, () => "the message is longer than anybody reads");
    }
    if (whole !== undefined) checkReading(whole, tar.length);
  },
};

/** Everything that the rest of the program takes for granted of a layer's entries. */
export function checkReading({ entries, extents, blobBytes }: TarReading, tarBytes: number): void {
  promise(
    entries.length <= limits.entriesMax && blobBytes <= limits.blobBytesMax + 4096,
    () => "a limit was passed",
  );
  let tarEnd = 0;
  let blobEnd = 0;
  for (const [tarOffset, blobOffset, length] of extents) {
    promise(length > 0 && tarOffset >= tarEnd && blobOffset >= blobEnd, () => "extents are not in order");
    tarEnd = tarOffset + length;
    blobEnd = blobOffset + length;
  }
  promise(
    tarEnd <= tarBytes && blobEnd <= blobBytes,
    () => "an extent is outside of the archive or the blob",
  );
  let next = 0;
  for (const entry of entries) {
    checkEntry(entry);
    if (entry.blobOffset < 0) continue;
    promise(
      entry.blobOffset >= next && entry.blobOffset % 4096 === 0,
      () => `${entry.path} overlaps in the blob`,
    );
    next = entry.blobOffset + entry.size;
  }
  promise(next <= blobBytes && blobBytes % 4096 === 0, () => "a file is outside of the blob");
}

function checkEntry(entry: TocEntry): void {
  const say = (what: string) => () => `${JSON.stringify(entry)}: ${what}`;
  const clean = (path: string): boolean =>
    path === "" || (!path.includes("\0") && path.split("/").every((part) => !["", ".", ".."].includes(part)));
  promise(clean(entry.path) && entry.path.length <= 4096, say("its path is not clean"));
  promise(
    entry.path.split("/").every((part) => part.length <= 255),
    say("a part is too long"),
  );
  promise((entry.mode & ~0o7777) === 0, say("mode"));
  for (const id of [entry.uid, entry.gid]) promise(id >= 0 && id < 2 ** 32, say("owner"));
  promise(
    Number.isSafeInteger(entry.mtimeSeconds) && entry.mtimeNanos >= 0 && entry.mtimeNanos < 1e9,
    say("time"),
  );
  promise(Number.isSafeInteger(entry.size) && entry.size >= 0, say("size"));
  promise(
    entry.blobOffset === -1 ? entry.type !== "file" || entry.size === 0 : entry.type === "file",
    say("place"),
  );
  if (entry.type === "symlink")
    promise(entry.link !== undefined && entry.link !== "" && entry.link.length < 4096, say("link"));
  if (entry.type === "hardlink")
    promise(entry.link !== undefined && entry.link !== "" && clean(entry.link), say("link"));
  const record: TocRecordBuffer = { bytes: Buffer.alloc(16), length: 0 };
  encodeTocEntry(entry, record);
  const back = decodeTocEntry(record.bytes, 4, record.length);
  promise(Bun.deepEquals(back, entry), say(`the table of contents gives back ${JSON.stringify(back)}`));
}

/** Sound archives: GNU tar lists what our reader found. */
export const gnuTarTarget: Target = {
  name: "gnu-tar",
  make: (random) => randomTar(random, false),
  async run(tar, _random: SeededRandom, folder) {
    const path = join(folder, "archive.tar");
    await mkdir(folder, { recursive: true });
    await writeFile(path, tar);
    const argv = [
      "tar",
      "--list",
      "--verbose",
      "--numeric-owner",
      "--full-time",
      "--quoting-style=c",
      "-f",
      path,
    ];
    const listed = await tryRun(argv, { env: { TZ: "UTC", LC_ALL: "C" } });
    const refusal = await refused(IndexError, () => {
      const ours = readArchive(tar, [4096]).entries.filter(
        ({ type }) => type !== "whiteout" && type !== "opaque",
      );
      if (listed.exitCode === 0) compare(ours, listed.stdout);
    });
    promise(
      refusal === undefined || listed.exitCode !== 0 || isOurs(refusal),
      () => `GNU tar reads what we refuse: ${refusal?.message}`,
    );
    promise(
      refusal !== undefined || listed.exitCode === 0,
      () => `GNU tar refuses what we read: ${listed.stderr}`,
    );
  },
};

/** Refused by what an image may hold, not by what a tar may. */
function isOurs({ code, message }: IndexError): boolean {
  return code === "limit_exceeded" || /is refused: /.test(message);
}

const kinds: Readonly<Record<string, string>> = {
  "-": "file",
  d: "dir",
  l: "symlink",
  h: "hardlink",
  c: "char",
  b: "block",
  p: "fifo",
};

function compare(ours: readonly TocEntry[], listing: string): void {
  const theirs = listing
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const match = /^(.)\S+ (\d+)\/(\d+) +(\d+(?:,\d+)?) +(\S+ \S+) +("(?:[^"\\]|\\.)*")/.exec(line);
      if (match === null) throw new Finding(`GNU tar says what nobody understands: ${line}`);
      const path = unquoted(match[6] ?? "").replace(/^\/+|\/+$/g, "");
      return {
        type: kinds[match[1] ?? ""],
        uid: Number(match[2]),
        gid: Number(match[3]),
        size: match[4],
        path,
      };
    })
    .filter(({ path }) => !path.includes(".wh."));
  const seen = ours.map((entry) => ({
    type: entry.type,
    uid: entry.uid,
    gid: entry.gid,
    size:
      entry.deviceMajor === undefined
        ? String(entry.type === "file" ? entry.size : 0)
        : `${entry.deviceMajor},${entry.deviceMinor}`,
    path: entry.path,
  }));
  promise(
    Bun.deepEquals(seen, theirs),
    () => `we read ${JSON.stringify(seen)}, GNU tar ${JSON.stringify(theirs)}`,
  );
}

function unquoted(text: string): string {
  return text
    .slice(1, -1)
    .replace(/\\([0-7]{3}|.)/g, (_, code: string) =>
      code.length === 3 ? String.fromCharCode(Number.parseInt(code, 8)) : code,
    );
}
