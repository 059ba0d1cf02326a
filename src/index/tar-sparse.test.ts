import { expect, test } from "bun:test";
import { failureOf, readTar } from "./layer.test-kit.ts";
import { makeTar, padded, SeededRandom } from "./tar.test-kit.ts";
import { sparseFormats as formats, pax10, type Segment } from "./tar-sparse.test-kit.ts";

test.each(Object.entries(formats))("places the data of sparse files in the format %s", (_, make) => {
  for (let seed = 1; seed < 30; seed += 1) {
    const random = new SeededRandom(seed);
    const segments: Segment[] = [];
    let end = 0;
    for (let count = random.next(60); count > 0; count -= 1) {
      const offset = end + 512 * (1 + random.next(40));
      segments.push([offset, 512 * (1 + random.next(9))]);
      end = offset + (segments.at(-1)?.[1] ?? 0);
    }
    const size = end + random.next(2) * 100_000;
    segments.push([size, 0]);
    const data = random.bytes(segments.reduce((sum, [, length]) => sum + length, 0));
    const expected = Buffer.alloc(size);
    let from = 0;
    for (const [offset, length] of segments) {
      data.copy(expected, offset, from, from + length);
      from += length;
    }
    const next = Buffer.from("next");
    const tar = Buffer.concat([
      make("dir/sparse", size, segments, data),
      makeTar([{ name: "n", data: next }]),
    ]);

    const { entries, extents, blobBytes } = readTar(tar, {}, 1 + random.next(2000));
    expect(entries.map((entry) => [entry.path, entry.type, entry.size])).toEqual([
      ["dir/sparse", "file", size],
      ["n", "file", 4],
    ]);
    const blob = Buffer.alloc(blobBytes);
    for (const [tarOffset, blobOffset, length] of extents)
      tar.copy(blob, blobOffset, tarOffset, tarOffset + length);
    expect(blob.subarray(0, size).equals(expected)).toBe(true);
    expect(entries[1]?.blobOffset).toBe(Math.ceil(size / 4096) * 4096);
    expect(blob.subarray(entries[1]?.blobOffset, (entries[1]?.blobOffset ?? 0) + 4).equals(next)).toBe(true);
  }
});

test("holds a file of a terabyte of holes without a byte for them", () => {
  const data = Buffer.alloc(512, 1);
  const tar = Buffer.concat([
    formats["pax 1.0"]("lastlog", 2 ** 40, [[2 ** 39, 512]], data),
    Buffer.alloc(1024),
  ]);
  const { entries, extents, blobBytes } = readTar(tar);
  expect([entries[0]?.size, blobBytes]).toEqual([2 ** 40, 2 ** 40]);
  expect(extents).toEqual([[1536 + 512, 2 ** 39, 512]]);
});

const bad: [string, readonly Segment[], number][] = [
  [
    "overlap",
    [
      [0, 1024],
      [512, 512],
    ],
    8192,
  ],
  [
    "are out of order",
    [
      [4096, 512],
      [0, 512],
    ],
    8192,
  ],
  [
    "go past the end",
    [
      [0, 512],
      [8000, 512],
    ],
    8192,
  ],
  ["claim less than is stored", [[0, 512]], 8192],
];
test.each(bad)("refuses sparse maps that %s, in every format", async (_, segments, size) => {
  const stored = segments.length === 1 ? 1024 : segments.reduce((sum, [, length]) => sum + length, 0);
  for (const make of Object.values(formats)) {
    const tar = make("f", size, segments, Buffer.alloc(stored));
    expect((await failureOf((async () => readTar(tar))())).code).toBe("bad_tar");
  }
});

test("bounds sparse maps, and refuses those that are no numbers", async () => {
  const failure = (map: string): Promise<{ code: string; message: string }> =>
    failureOf((async () => readTar(makeTar([pax10("f", 1e6, padded(Buffer.from(map)))])))());
  expect((await failure("1048577\n")).message).toContain("sparse_segments_max");
  expect((await failure("1\nx\n5\n")).code).toBe("bad_tar");
  expect((await failure("9".repeat(2000))).code).toBe("bad_tar");
  expect((await failure("100\n1\n1\n")).code).toBe("bad_tar");
  expect((await failure("-1\n")).code).toBe("bad_tar");
});
