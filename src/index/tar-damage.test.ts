import { expect, test } from "bun:test";
import { readTar } from "./layer.test-kit.ts";
import { type IndexLimits, limitName } from "./limits.ts";
import {
  gnuLong,
  type KitMember,
  makeTar,
  padded,
  paxRecord,
  SeededRandom,
  sealHeader,
} from "./tar.test-kit.ts";

function failure(tar: Uint8Array, limits = {}): { code: unknown; message: string } {
  try {
    readTar(tar, limits);
  } catch (error) {
    return { code: (error as { code?: unknown }).code, message: (error as Error).message };
  }
  return { code: "none", message: "" };
}

test("refuses a header whose checksum is wrong, at every byte that changes", () => {
  const tar = makeTar([{ name: "file", mtime: 1, data: Buffer.from("data") }]);
  for (let at = 0; at < 512; at += 1) {
    const broken = Buffer.from(tar);
    broken[at] = (broken[at] ?? 0) ^ 0x01;
    // Changing the blanks around the checksum itself may leave it what it is.
    if (at >= 154 && at < 156) continue;
    expect(failure(broken).code).toBe("bad_tar");
  }
});

test("names the entry in which a truncated archive stops, wherever it stops", () => {
  const tar = makeTar(
    [
      { name: "first", data: Buffer.alloc(700) },
      { name: "second", data: Buffer.alloc(600) },
    ],
    0,
  );
  const whole = [0, 2 * 512 + 512];
  for (let length = 0; length < tar.length; length += 1) {
    const { code, message } = failure(tar.subarray(0, length));
    const paddingOnly = (length >= 512 + 700 && length <= 1536) || length >= 1536 + 512 + 600;
    if (paddingOnly || whole.includes(length)) expect(code).toBe("none");
    else expect(code).toBe("bad_tar");
    if (!paddingOnly && length > 512 && length < 512 + 700) expect(message).toContain('"first"');
    if (length > 2048 && length < 2048 + 600) expect(message).toContain('"second"');
  }
});

test("refuses an archive that stops after an extended header", () => {
  const tar = makeTar([{ name: "x", pax: [["path", "y"]] }], 0);
  expect(failure(tar.subarray(0, 1024)).code).toBe("bad_tar");
  expect(failure(padded(makeTar([gnuLong("L", "name")], 0))).code).toBe("bad_tar");
});

test("ends at two zero blocks and ignores what follows; a header after one zero block is refused", () => {
  const tar = makeTar([{ name: "a" }]);
  const garbage = Buffer.concat([tar, Buffer.from("garbage".repeat(300))]);
  expect(readTar(garbage).entries.length).toBe(1);
  const lone = Buffer.concat([makeTar([{ name: "a" }], 1), makeTar([{ name: "b" }])]);
  expect(failure(lone).code).toBe("bad_tar");
  expect(readTar(makeTar([{ name: "a" }], 1)).entries.length).toBe(1);
});

test("takes an empty archive, with and without its end", () => {
  expect(readTar(Buffer.alloc(0)).entries).toEqual([]);
  expect(readTar(Buffer.alloc(10_240)).entries).toEqual([]);
});

test.each([
  ["entriesMax", { entriesMax: 2 }, [{ name: "a" }, { name: "b" }, { name: "c" }]],
  ["pathBytesMax", {}, [{ name: "x", pax: [["path", "a/".repeat(2049)]] }]],
  ["nameBytesMax", {}, [{ name: "x", pax: [["path", "n".repeat(256)]] }]],
  ["pathBytesMax", {}, [{ name: "x", type: "2", pax: [["linkpath", "n".repeat(4096)]] }]],
  ["xattrValueBytesMax", {}, [{ name: "x", pax: [["SCHILY.xattr.user.x", "v".repeat(65536)]] }]],
  [
    "xattrBytesPerEntryMax",
    {},
    [{ name: "x", pax: [1, 2, 3, 4].map((n) => [`SCHILY.xattr.user.${n}`, "v".repeat(60_000)]) }],
  ],
  ["paxBytesMax", {}, [{ name: "x", type: "x", size: 2 ** 20 + 1 }]],
  ["paxBytesMax", {}, [{ name: "x", type: "L", size: 2 ** 40 }]],
  ["paxBytesMax", {}, [{ name: "g", type: "g", data: paxRecord("k", "v".repeat(2 ** 20)) }]],
  ["blobBytesMax", {}, [{ name: "x", size: 2 ** 43, format: "gnu" }]],
] as [keyof IndexLimits, object, KitMember[]][])(
  "names the limit %s that a hostile archive breaks",
  (limit, limits, members) => {
    const { code, message } = failure(makeTar(members), limits);
    expect(code).toBe("limit_exceeded");
    expect(message).toContain(limitName(limit));
    expect(message.length).toBeLessThan(400);
  },
);

test("gives the same entries however the stream is cut into chunks", () => {
  const tar = makeTar([
    gnuLong("L", `${"d/".repeat(80)}f`),
    { name: "cut", format: "gnu", data: Buffer.alloc(1300, 1) },
    { name: "y", pax: [["path", "p".repeat(200)]], data: Buffer.alloc(513) },
  ]);
  const whole = readTar(tar, {}, tar.length);
  for (const size of [1, 7, 511, 512, 513, 1025]) expect(readTar(tar, {}, size)).toEqual(whole);
});

test("throws its own errors alone, whatever bytes of an archive change", () => {
  const base = makeTar([
    { name: "a/", type: "5" },
    {
      name: "x",
      pax: [
        ["path", "p/q"],
        ["mtime", "1.5"],
        ["SCHILY.xattr.user.x", "v"],
      ],
      data: Buffer.from("hello"),
    },
    gnuLong("L", "long/".repeat(40)),
    { name: "l", format: "gnu", data: Buffer.alloc(600, 3) },
    { name: "h", type: "1", link: "x" },
    {
      name: "s",
      data: Buffer.alloc(512),
      pax: [
        ["GNU.sparse.size", "4096"],
        ["GNU.sparse.map", "0,512"],
      ],
    },
    { name: "g", type: "g", data: paxRecord("uid", "5") },
    { name: "dir/.wh.z" },
  ]);
  const likely = [...Buffer.from("0179 /.=SLxg\n\0\x80\xff", "latin1")];
  for (let seed = 0; seed < 1500; seed += 1) {
    const random = new SeededRandom(seed);
    const tar = Buffer.from(base);
    for (let changes = 1 + random.next(3); changes > 0; changes -= 1) {
      tar[random.next(tar.length)] = random.next(3) === 0 ? random.next(256) : random.pick(likely);
    }
    for (let at = 0; at < tar.length; at += 512) {
      if (base.toString("latin1", at + 257, at + 262) === "ustar") sealHeader(tar.subarray(at, at + 512));
    }
    expect(["none", "bad_tar", "limit_exceeded"]).toContain(failure(tar).code as string);
  }
});
