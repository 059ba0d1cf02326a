import { header, type KitMember, makeTar, octal, padded } from "./tar.test-kit.ts";

export type Segment = readonly [offset: number, length: number];

/** The three ways of pax, and GNU's old one, to store the same sparse file. */
export const sparseFormats = {
  "old GNU": (name: string, size: number, segments: readonly Segment[], data: Buffer): Buffer => {
    const put = (block: Buffer, start: number, some: readonly Segment[]): void => {
      for (const [at, [offset, length]] of some.entries()) {
        octal(block, offset, start + at * 24, 12);
        octal(block, length, start + at * 24 + 12, 12);
      }
    };
    const blocks = [
      header({
        name,
        type: "S",
        format: "gnu",
        size: data.length,
        edit: (block) => {
          put(block, 386, segments.slice(0, 4));
          block[482] = segments.length > 4 ? 1 : 0;
          octal(block, size, 483, 12);
        },
      }),
    ];
    for (let from = 4; from < segments.length; from += 21) {
      const block = Buffer.alloc(512);
      put(block, 0, segments.slice(from, from + 21));
      block[504] = segments.length > from + 21 ? 1 : 0;
      blocks.push(block);
    }
    return Buffer.concat([...blocks, padded(data)]);
  },
  "pax 0.0": (name: string, size: number, segments: readonly Segment[], data: Buffer): Buffer =>
    makeTar(
      [
        {
          name,
          data,
          pax: [
            ["GNU.sparse.size", `${size}`],
            ["GNU.sparse.numblocks", `${segments.length}`],
            ...segments.flatMap(
              ([offset, length]) =>
                [
                  ["GNU.sparse.offset", `${offset}`],
                  ["GNU.sparse.numbytes", `${length}`],
                ] as const,
            ),
          ],
        },
      ],
      0,
    ),
  "pax 0.1": (name: string, size: number, segments: readonly Segment[], data: Buffer): Buffer =>
    makeTar(
      [
        {
          name: "GNUSparseFile.1/x",
          data,
          pax: [
            ["GNU.sparse.name", name],
            ["GNU.sparse.size", `${size}`],
            ["GNU.sparse.numblocks", `${segments.length}`],
            ["GNU.sparse.map", segments.flat().join(",")],
          ],
        },
      ],
      0,
    ),
  "pax 1.0": (name: string, size: number, segments: readonly Segment[], data: Buffer): Buffer => {
    const map = padded(Buffer.from([segments.length, ...segments.flat()].map((n) => `${n}\n`).join("")));
    return makeTar([pax10(name, size, Buffer.concat([map, data]))], 0);
  },
};

/** A sparse file in the format 1.0, whose data begin with their map. */
export function pax10(name: string, size: number, data: Buffer): KitMember {
  return {
    name: "GNUSparseFile.1/x",
    data,
    pax: [
      ["GNU.sparse.major", "1"],
      ["GNU.sparse.minor", "0"],
      ["GNU.sparse.name", name],
      ["GNU.sparse.realsize", `${size}`],
    ],
  };
}
