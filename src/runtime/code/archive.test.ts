import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { lstat, mkdtemp, readdir, readFile, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { gnuLong, type KitMember, makeTar, SeededRandom } from "../../index/tar.test-kit.ts";
import { RuntimeError } from "../error.ts";
import { type CodeSize, readCodeArchive } from "./archive.ts";
import { CodeFolder } from "./folder.ts";

const mebi = 1024 ** 2;
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "oci-node-code-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function* pieces(bytes: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

const unpack = (archive: Uint8Array, bytesMax = mebi, pieceBytes = 1000): Promise<CodeSize> =>
  readCodeArchive(pieces(archive, pieceBytes), bytesMax, new CodeFolder(folder));
const packed = (members: readonly KitMember[]) => gzipSync(makeTar(members));

/** Nothing that was refused has made a link. */
async function linksIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isSymbolicLink()).map(({ name }) => name);
}

/** What was refused, of a RuntimeError `code`. */
async function refusal(archive: Uint8Array, bytesMax = mebi): Promise<string> {
  const empty = await mkdtemp(join(folder, "refused-"));
  const outcomes = await Promise.all(
    [new CodeFolder(empty), undefined].map((sink) =>
      readCodeArchive(pieces(archive, 1000), bytesMax, sink).then(
        () => "taken",
        (error: unknown) => {
          if (!(error instanceof RuntimeError) || error.code !== "code") throw error;
          return error.message;
        },
      ),
    ),
  );
  if (archive.length < 10_000) expect(await linksIn(empty)).toEqual([]);
  // Whoever only looks comes to the same end as the one who unpacks.
  expect(outcomes[1]).toBe(outcomes[0] as string);
  return outcomes[0] as string;
}

test("an archive becomes files, directories and links, readable by all, whatever its modes and its pieces are", async () => {
  const long = `${"deep/".repeat(30)}${"n".repeat(120)}.py`;
  const random = new SeededRandom(7);
  const big = random.bytes(300_000);
  const archive = packed([
    { name: "./", type: "5", mode: 0o700 },
    { name: "app.py", data: Buffer.from("print('x')"), mode: 0o4600, uid: 1000 },
    { name: "bin/run", data: Buffer.from("#!/bin/sh\n"), mode: 0o6711 },
    { name: "bin", type: "5", mode: 0o7777 },
    { name: "big.bin", data: big },
    { name: "empty", data: Buffer.alloc(0) },
    { name: "x", pax: [["path", Buffer.from(`${long}é`)]], data: Buffer.from("pax") },
    gnuLong("L", "gnu/long"),
    { name: "gnu", format: "gnu", data: Buffer.from("gnu") },
    { name: "link.py", type: "2", link: "bin/../app.py" },
    { name: "gnu/up", type: "2", link: "../nothing-there" },
  ]);
  for (const pieceBytes of [1, 517, 1 << 20]) {
    await rm(folder, { recursive: true });
    folder = await mkdtemp(join(tmpdir(), "oci-node-code-"));
    const { entries, diskBytes } = await unpack(archive, mebi, pieceBytes);
    expect(entries).toBe(10);
    expect(diskBytes).toBe(10 * 4096 + 303_104 + 4 * 4096);
    expect(await readFile(join(folder, "app.py"), "utf8")).toBe("print('x')");
    expect(Buffer.compare(await readFile(join(folder, "big.bin")), big)).toBe(0);
    expect(await readFile(join(folder, `${long}é`), "utf8")).toBe("pax");
    expect(await readFile(join(folder, "gnu/long"), "utf8")).toBe("gnu");
    expect(await readlink(join(folder, "link.py"))).toBe("bin/../app.py");
    const modes = ["app.py", "bin/run", "bin", "deep", "empty"].map(async (name) => {
      const { mode, uid, gid } = await lstat(join(folder, name));
      return [name, (mode & 0o7777).toString(8), uid, gid];
    });
    const [uid, gid] = [process.getuid?.() ?? -1, process.getgid?.() ?? -1];
    expect(await Promise.all(modes)).toEqual([
      ["app.py", "644", uid, gid],
      ["bin/run", "755", uid, gid],
      ["bin", "755", uid, gid],
      ["deep", "755", uid, gid],
      ["empty", "644", uid, gid],
    ]);
  }
});

describe("an archive is refused that holds", () => {
  const file = { data: Buffer.from("x") };
  const rows: readonly (readonly [string, readonly KitMember[], string])[] = [
    [
      "a way up",
      [{ name: "a/../../etc/passwd", ...file }],
      'its entry "a/../../etc/passwd" is refused: it has `..`',
    ],
    ["an absolute path", [{ name: "/etc/passwd", ...file }], "its path is absolute"],
    [
      "a pax path that is absolute",
      [{ name: "a", pax: [["path", "/etc/x"]], ...file }],
      "its path is absolute",
    ],
    [
      "a file twice",
      [
        { name: "a", ...file },
        { name: "./a", ...file },
      ],
      'its entry "./a" is refused: it is there twice',
    ],
    [
      "a directory twice",
      [
        { name: "d", type: "5" },
        { name: "d/", type: "5" },
      ],
      "it is there twice",
    ],
    [
      "a file in place of a directory",
      [
        { name: "d/a", ...file },
        { name: "d", ...file },
      ],
      "it is there twice",
    ],
    [
      "what lies below a file",
      [
        { name: "a", ...file },
        { name: "a/b", ...file },
      ],
      'it lies below "a", which is a file',
    ],
    [
      "what lies below a link",
      [
        { name: "l", type: "2", link: "." },
        { name: "l/b", ...file },
      ],
      'it lies below "l", which is a link',
    ],
    ["a hard link", [{ name: "h", type: "1", link: "/etc/shadow" }], "it is a hard link"],
    ["a device", [{ name: "d", type: "4", deviceMajor: 8 }], "it is a device"],
    ["a named pipe", [{ name: "p", type: "6" }], "it is a named pipe"],
    ["what nobody knows", [{ name: "p", type: "Z" }], "it is neither a file"],
    [
      "a sparse file",
      [
        {
          name: "s",
          pax: [
            ["GNU.sparse.map", "0,1"],
            ["GNU.sparse.size", "9"],
          ],
          ...file,
        },
      ],
      "sparse",
    ],
    [
      "an absolute link",
      [{ name: "l", type: "2", link: "/etc" }],
      'a symbolic link to an absolute path: "/etc"',
    ],
    ["a link that leaves", [{ name: "a/l", type: "2", link: "../../x" }], 'leaves the folder: "../../x"'],
    [
      "a link that leaves by way of another",
      [
        { name: "p/q/up", type: "2", link: "../.." },
        { name: "p/q/l", type: "2", link: "up/.." },
      ],
      'its entry "p/q/l" is refused: it is a symbolic link that leaves the folder: "up/.."',
    ],
    ["a link to nothing", [{ name: "l", type: "2", link: "" }], "a symbolic link to nothing"],
    [
      "a path that is too long",
      [{ name: "a", pax: [["path", "n/".repeat(600)]], ...file }],
      "longer than 1024 bytes",
    ],
    [
      "a name that is too long",
      [{ name: "a", pax: [["path", "n".repeat(256)]], ...file }],
      "longer than 255 bytes",
    ],
    [
      "what lies too deep",
      [{ name: "a", pax: [["path", `${"d/".repeat(64)}f`]], ...file }],
      "deeper than 64",
    ],
    [
      "a name that is no text",
      [{ name: "a", pax: [["path", "\xff\xfe"]], ...file }],
      "its name is not UTF-8",
    ],
    ["no name", [{ name: "./", type: "0", ...file }], "it has no name"],
  ];
  test.each(rows)("%s", async (_, members, message) => {
    expect(await refusal(packed(members))).toContain(message);
  });

  test("more than it may, by its contents, its headers or its links, before that is written", async () => {
    const bomb = packed([{ name: "zeros", data: Buffer.alloc(2 * mebi) }]);
    expect(bomb.length).toBeLessThan(10_000);
    expect(await refusal(bomb)).toContain("unpacked it is larger than 1.0 MiB");
    expect(await refusal(packed([{ name: "liar", size: 2 ** 40 }]))).toContain("larger than 1.0 MiB");
    const left = await readdir(folder, { recursive: true });
    expect(left.filter((name) => !name.startsWith("refused-") || name.includes("/"))).toEqual([]);
    const implied = Array.from({ length: 1000 }, (_, at) => ({ name: `${at}/`.repeat(60), type: "5" }));
    const folded = Array.from({ length: 2000 }, (_, at) => ({
      name: `l${at}`,
      type: "2",
      pax: [["linkpath", "d/../".repeat(200)] as const],
    }));
    const look = (members: readonly KitMember[]) => readCodeArchive(pieces(packed(members), 1 << 20), mebi);
    await expect(look(implied)).rejects.toThrow("more than 50000 entries");
    await expect(look([{ name: "d", type: "5" }, ...folded])).rejects.toThrow(
      "lead through too many directories",
    );
  });

  test("no archive at all, or a part of one", async () => {
    expect(await refusal(Buffer.from("PK\x03\x04 a zip"))).toContain("it is not gzip");
    expect(await refusal(gzipSync(Buffer.from("no tar".repeat(200))))).toContain("cannot be used");
    const whole = packed([{ name: "a", data: new SeededRandom(1).bytes(20_000) }]);
    expect(await refusal(whole.subarray(0, whole.length / 2))).toContain("it is not gzip, or damaged");
    expect(await refusal(gzipSync(makeTar([{ name: "a", data: Buffer.from("x") }], 0)))).toContain(
      "cut short",
    );
    expect(await refusal(new Uint8Array())).toContain("cannot be used");
  });
});

test("what the source throws comes through, and nothing stays open", async () => {
  const archive = packed([{ name: "a", data: new SeededRandom(2).bytes(300_000) }]);
  async function* broken() {
    yield archive.subarray(0, archive.length / 2);
    throw new Error("the line is down");
  }
  await expect(readCodeArchive(broken(), mebi, new CodeFolder(folder))).rejects.toThrow("the line is down");
});
