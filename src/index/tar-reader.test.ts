import { expect, test } from "bun:test";
import { readTar } from "./layer.test-kit.ts";
import { gnuLong, header, type KitMember, makeTar, octal, paxRecord } from "./tar.test-kit.ts";
import type { TocEntry } from "./types.ts";

function one(members: readonly KitMember[]): TocEntry {
  const { entries } = readTar(makeTar(members));
  expect(entries.length).toBe(1);
  return entries[0] as TocEntry;
}

function failure(tar: Uint8Array, limits = {}): { code: unknown; message: string } {
  try {
    readTar(tar, limits);
  } catch (error) {
    return { code: (error as { code?: unknown }).code, message: (error as Error).message };
  }
  return { code: "none", message: "" };
}

test("reads what a plain header says", () => {
  const data = Buffer.from("hello");
  const file = { name: "./bin/su", mode: 0o104755, uid: 7, gid: 8, mtime: 1234567890, data };
  expect(one([file])).toEqual({
    path: "bin/su",
    type: "file",
    mode: 0o4755,
    uid: 7,
    gid: 8,
    mtimeSeconds: 1234567890,
    mtimeNanos: 0,
    size: 5,
    blobOffset: 0,
  });
});

test("reads every type of entry", () => {
  const { entries } = readTar(
    makeTar([
      { name: "./", type: "5" },
      { name: "d/", type: "5" },
      { name: "f", type: "0", data: Buffer.from("x") },
      { name: "c7", type: "7", data: Buffer.from("y") },
      { name: "h", type: "1", link: "/./f" },
      { name: "s", type: "2", link: "../../anything" },
      { name: "tty", type: "3", deviceMajor: 4, deviceMinor: 64 },
      { name: "disk", type: "4", deviceMajor: 8, deviceMinor: 1048575 },
      { name: "pipe", type: "6" },
    ]),
  );
  expect(entries.map((entry) => [entry.path, entry.type, entry.size, entry.blobOffset])).toEqual([
    ["", "dir", 0, -1],
    ["d", "dir", 0, -1],
    ["f", "file", 1, 0],
    ["c7", "file", 1, 4096],
    ["h", "hardlink", 0, -1],
    ["s", "symlink", 14, -1],
    ["tty", "char", 0, -1],
    ["disk", "block", 0, -1],
    ["pipe", "fifo", 0, -1],
  ]);
  expect(entries.flatMap((entry) => entry.link ?? [])).toEqual(["f", "../../anything"]);
  expect([entries[6]?.deviceMajor, entries[6]?.deviceMinor]).toEqual([4, 64]);
  expect([entries[7]?.deviceMajor, entries[7]?.deviceMinor]).toEqual([8, 1048575]);
});

test("reads v7 archives: a NUL type is a file, or a folder when the name ends in a slash", () => {
  const { entries } = readTar(
    makeTar([
      { name: "dir/", type: "\0", format: "v7" },
      { name: "dir/file", type: "\0", format: "v7", data: Buffer.from("v7") },
    ]),
  );
  expect(entries.map((entry) => [entry.path, entry.type])).toEqual([
    ["dir", "dir"],
    ["dir/file", "file"],
  ]);
});

test("joins the ustar prefix, and leaves GNU's fields in its place alone", () => {
  const long = `${"p".repeat(90)}/${"q".repeat(60)}/${"r".repeat(80)}`;
  expect(one([{ name: long }]).path).toBe(long);
  expect(one([{ name: "short", format: "gnu", edit: (block) => octal(block, 1234, 345, 12) }]).path).toBe(
    "short",
  );
});

test("takes GNU long names and long links", () => {
  const name = `${"deep/".repeat(60)}end`;
  const link = "t".repeat(300);
  const entry = one([
    gnuLong("K", link),
    gnuLong("L", name),
    { name: name.slice(0, 99), type: "2", link: link.slice(0, 99), format: "gnu" },
  ]);
  expect([entry.path, entry.link, entry.size]).toEqual([name, link, 300]);
});

test("takes base-256 numbers, negative ones too, and fields padded in any old way", () => {
  const entry = one([
    {
      name: "big",
      uid: 4294967295,
      gid: 3000000,
      mtime: -86401,
      format: "gnu",
      edit: (block) => block.write("  755\0\0\0", 100, "latin1"),
    },
  ]);
  expect([entry.uid, entry.gid, entry.mtimeSeconds, entry.mode]).toEqual([
    4294967295, 3000000, -86401, 0o755,
  ]);
});

test("takes checksums that were summed with signed bytes", () => {
  const block = header({ name: "caf\xe9\xff" });
  const unsigned = Number.parseInt(block.toString("latin1", 148, 154), 8);
  block.write((unsigned - 2 * 256).toString(8).padStart(6, "0"), 148, "latin1");
  const { entries } = readTar(Buffer.concat([block, Buffer.alloc(1024)]));
  expect(entries[0]?.path).toBe("caf\xe9\xff");
});

test("lets pax records win over the header, for one member only", () => {
  const path = `${"x".repeat(200)}/\xe4\xf6`;
  const { entries } = readTar(
    makeTar([
      {
        name: "short",
        data: Buffer.from("12345"),
        size: 0,
        pax: [
          ["path", path],
          ["size", "5"],
          ["uid", "4294967294"],
          ["gid", "99999999"],
          ["mtime", "1700000000.123456789123"],
        ],
      },
      { name: "next", type: "2", link: "short", pax: [["linkpath", "y".repeat(150)]] },
      { name: "last", mtime: 5 },
    ]),
  );
  expect(entries[0]).toEqual({
    path,
    type: "file",
    mode: 0o644,
    uid: 4294967294,
    gid: 99999999,
    mtimeSeconds: 1700000000,
    mtimeNanos: 123456789,
    size: 5,
    blobOffset: 0,
  });
  expect([entries[1]?.link, entries[2]?.mtimeSeconds]).toEqual(["y".repeat(150), 5]);
});

test.each([
  ["1.5", 1, 500_000_000],
  ["-1.25", -2, 750_000_000],
  ["-3", -3, 0],
  ["0", 0, 0],
  ["-0.000000001", -1, 999_999_999],
  ["12.", 12, 0],
])("reads the pax time %s", (text, seconds, nanos) => {
  const entry = one([{ name: "f", pax: [["mtime", text]] }]);
  expect([entry.mtimeSeconds, entry.mtimeNanos]).toEqual([seconds, nanos]);
});

test("reads global pax headers and lets them have no effect, as engines do", () => {
  const global = (records: Buffer): KitMember => ({ name: "g", type: "g", data: records });
  const { entries } = readTar(
    makeTar([
      global(Buffer.concat([paxRecord("uid", "42"), paxRecord("SCHILY.xattr.user.x", "v")])),
      { name: "a", uid: 3 },
      { name: "b", pax: [["uid", "7"]] },
      global(paxRecord("size", "9007199254740991")),
      { name: "c", data: Buffer.from("c") },
    ]),
  );
  expect(entries.map(({ uid, size, xattrs }) => [uid, size, xattrs])).toEqual([
    [3, 0, undefined],
    [7, 0, undefined],
    [0, 1, undefined],
  ]);
  expect(() => readTar(makeTar([global(Buffer.from("9 nothing")), { name: "a" }]))).toThrow("pax header");
});

test("keeps extended attributes byte for byte, and gives none of the overlay's orders on", () => {
  const capability = Uint8Array.of(1, 0, 0, 2, 0, 10, 61, 0xff, 0);
  const entry = one([
    {
      name: "ping",
      pax: [
        ["LIBARCHIVE.xattr.user.per%20cent", Buffer.from("v\0v").toString("base64")],
        ["LIBARCHIVE.xattr.security.capability", "AAAA"],
        ["SCHILY.xattr.security.capability", capability],
        ["SCHILY.xattr.user.empty", ""],
        ["SCHILY.xattr.user.a=b", "odd"],
        ["SCHILY.xattr.trusted.overlay.opaque", "y"],
        ["SCHILY.xattr.user.overlay.redirect", "/etc"],
        ["SCHILY.acl.access", "user::rwx"],
      ],
    },
  ]);
  const xattrs = new Map(entry.xattrs);
  expect([...xattrs.keys()].sort()).toEqual(["security.capability", "user.a", "user.empty", "user.per cent"]);
  expect(xattrs.get("security.capability")).toEqual(capability);
  expect(xattrs.get("user.per cent")).toEqual(Uint8Array.of(0x76, 0, 0x76));
});

test("turns whiteouts into what they mean, and leaves aufs' own files out", () => {
  const { entries } = readTar(
    makeTar([
      { name: "a/.wh.gone" },
      { name: ".wh.top" },
      { name: "a/b/.wh..wh..opq" },
      { name: ".wh..wh..opq" },
      { name: ".wh..wh.aufs" },
      { name: ".wh..wh.plnk/", type: "5" },
      { name: ".wh..wh.plnk/12.34", data: Buffer.from("x") },
      { name: "a/not.wh.one" },
    ]),
  );
  expect(entries.map((entry) => [entry.type, entry.path])).toEqual([
    ["whiteout", "a/gone"],
    ["whiteout", "top"],
    ["opaque", "a/b"],
    ["opaque", ""],
    ["file", "a/not.wh.one"],
  ]);
});

test("leaves the files out that lazy-pull builders add for themselves", () => {
  const data = Buffer.from("{}");
  const { entries, blobBytes } = readTar(
    makeTar([
      { name: "stargz.index.json", data },
      { name: ".prefetch.landmark", data },
      { name: ".no.prefetch.landmark", data },
      { name: "etc/stargz.index.json", data },
    ]),
  );
  expect(entries.map((entry) => entry.path)).toEqual(["etc/stargz.index.json"]);
  expect(blobBytes).toBe(4096);
});

test("cleans names: absolute ones are relative to the root, empty and dot parts vanish", () => {
  const names = ["/etc/passwd", "./a//b/./c", "///", "...", "a/..b/c.."];
  const { entries } = readTar(makeTar(names.map((name) => ({ name, type: "5" }))));
  expect(entries.map((entry) => entry.path)).toEqual(["etc/passwd", "a/b/c", "", "...", "a/..b/c.."]);
});

test.each([
  ["a name that climbs out", { name: "../etc/passwd" }],
  ["a name that climbs inside", { name: "a/../b" }],
  ["a name that ends in dots", { name: "a/.." }],
  ["a pax name that climbs out", { name: "x", pax: [["path", "/a/../../b"]] }],
  ["a pax name with a NUL", { name: "x", pax: [["path", "a\0b"]] }],
  ["a hard link that climbs out", { name: "x", type: "1", link: "../../etc/shadow" }],
  ["a hard link to itself", { name: "./x", type: "1", link: "x" }],
  ["a hard link to the root", { name: "x", type: "1", link: "/" }],
  ["a symlink to nothing", { name: "x", type: "2" }],
  ["a whiteout of nothing", { name: "a/.wh." }],
  ["a whiteout of the parent", { name: "a/.wh..." }],
  ["a whiteout of the folder", { name: "a/.wh.." }],
  ["a file in the root's place", { name: "./", type: "0" }],
  ["an unknown type", { name: "x", type: "V" }],
  ["a user id that does not fit", { name: "x", uid: 4294967296 }],
  ["a negative user id", { name: "x", uid: -1, format: "gnu" }],
  ["a negative size", { name: "x", size: -1, format: "gnu" }],
  ["a device number that does not fit", { name: "x", type: "3", deviceMajor: 4096 }],
  ["a number that is none", { name: "x", edit: (block: Buffer) => block.write("12x", 108) }],
  ["a time past all time", { name: "x", mtime: 2 ** 60 }],
  ["a pax size that is none", { name: "x", pax: [["size", "-5"]] }],
  ["a pax time that is none", { name: "x", pax: [["mtime", "1e5"]] }],
] as [string, KitMember][])("refuses %s", (_, member) => {
  const { code, message } = failure(makeTar([member]));
  expect(code).toBe("bad_tar");
  expect(message.length).toBeLessThan(400);
});

test.each([
  ["no length", " path=x\n"],
  ["a length that is no number", "9a path=x\n"],
  ["a length past the end", "99 path=x\n"],
  ["a length that stops short", "8 path=xx\n"],
  ["no key", "5 =x\n"],
  ["no equals sign", "7 path\n"],
])("refuses a pax record with %s", (_, text) => {
  const tar = makeTar([{ name: "p", type: "x", data: Buffer.from(text) }, { name: "f" }]);
  expect(failure(tar).code).toBe("bad_tar");
});
