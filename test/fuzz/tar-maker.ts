import {
  gnuLong,
  header,
  type KitMember,
  octal,
  padded,
  paxRecord,
  type SeededRandom,
  sealHeader,
} from "../../src/index/tar.test-kit.ts";

const names = ["a", "b", "c", "d", "e", "\xff\xfe", "caf\xe9", ".x", "-", "n".repeat(255)];
const hostileParts = [
  "..",
  ".",
  "",
  "a\0b",
  "n".repeat(256),
  ".wh.",
  ".wh...",
  ".wh..wh..opq",
  ".wh..wh.plnk",
];
const numbers = [
  "0",
  "1",
  "-1",
  "4096",
  "9007199254740991",
  "9007199254740992",
  "99999999999999999999",
  "1e3",
  "",
];
const types = [
  "0",
  "\0",
  "7",
  "1",
  "2",
  "3",
  "4",
  "5",
  "6",
  "S",
  "x",
  "g",
  "L",
  "K",
  "V",
  "M",
  "D",
  "A",
  "\xff",
];

/**
 * An archive of a few members, most of them sound, whose names come from a small set so that they meet: links to each
 * other, files over folders, whiteouts, sparse files in every format, pax and GNU extensions, long names.
 *
 * @param wild whether to put in what no archiver would write
 */
export function randomTar(random: SeededRandom, wild: boolean): Buffer {
  const blocks: Buffer[] = [];
  for (let left = 1 + random.next(8); left > 0; left -= 1) blocks.push(...randomMember(random, wild));
  const end = wild && random.next(8) === 0 ? random.next(4) : 2;
  return Buffer.concat([...blocks, Buffer.alloc(end * 512)]);
}

/** The archive with damage that its checksums do not tell: every header is sealed again, most of the time. */
export function damageTar(tar: Buffer, random: SeededRandom): Buffer {
  let damaged: Buffer = Buffer.from(tar);
  const headers: number[] = [];
  for (let at = 0; at + 512 <= tar.length; at += 512) {
    if (tar.toString("latin1", at + 257, at + 262) === "ustar") headers.push(at);
  }
  for (let left = 1 + random.next(3); left > 0; left -= 1) {
    const at = headers.length > 0 && random.next(4) > 0 ? random.pick(headers) : random.next(tar.length);
    const block = random.next(Math.max(1, damaged.length / 512)) * 512;
    switch (random.next(7)) {
      case 0:
        damaged = damaged.subarray(0, random.next(damaged.length));
        break;
      case 1:
        damaged = Buffer.concat([damaged.subarray(0, block), damaged.subarray(block + 512)]);
        break;
      case 2:
        damaged = Buffer.concat([
          damaged.subarray(0, block),
          damaged.subarray(block, block + 512 * (1 + random.next(3))),
          damaged.subarray(block),
        ]);
        break;
      case 3:
        if (at + 136 <= damaged.length)
          octal(damaged, random.pick([-1, 0, 1, 511, 513, 2 ** 33, 2 ** 53, 2 ** 62]), at + 124, 12);
        break;
      case 4:
        damaged[at + 156] = random.pick(types).charCodeAt(0);
        break;
      default:
        damaged[at + random.next(512)] =
          random.next(3) > 0 ? random.pick([..."0179 /.=,\n\0\x80\xff"]).charCodeAt(0) : random.next(256);
    }
  }
  if (random.next(10) > 0)
    for (const at of headers) if (at + 512 <= damaged.length) sealHeader(damaged.subarray(at, at + 512));
  return damaged;
}

function randomMember(random: SeededRandom, wild: boolean): Buffer[] {
  const name = randomPath(random, wild);
  const kind = random.next(wild ? 18 : 15);
  const data = random.bytes(random.pick([0, 1, 511, 512, 513, 4095, 4096, 4097, 9000]));
  const common = {
    name,
    mode: random.next(0o10000),
    uid: random.next(3000),
    gid: random.next(3000),
    mtime: random.next(2 ** 31),
  };
  if (kind < 4) return members(random, wild, { ...common, data });
  if (kind === 4) return members(random, wild, { ...common, type: "5" });
  if (kind === 5)
    return members(random, wild, {
      ...common,
      type: "2",
      link: randomPath(random, true).replaceAll("\0", "") || "x",
    });
  if (kind === 6) return members(random, wild, { ...common, type: "1", link: randomPath(random, wild) });
  if (kind === 7)
    return members(random, wild, {
      ...common,
      type: random.pick(["3", "4"]),
      deviceMajor: random.next(4096),
      deviceMinor: random.next(2 ** 20),
    });
  if (kind === 8) return members(random, wild, { ...common, type: "6" });
  if (kind === 9)
    return members(random, wild, { ...common, name: `${parentOf(name)}.wh.${random.pick(names)}` });
  if (kind === 10) return members(random, wild, { ...common, name: `${name}/.wh..wh..opq` });
  if (kind === 11) return oldSparse(random, common.name, wild);
  if (kind === 12) return paxSparse(random, common.name, wild);
  if (kind === 13)
    return [
      ...blocksOf(gnuLong("L", `${name}/${"long/".repeat(30)}end`)),
      ...blocksOf({ ...common, name: "cut", format: "gnu", data }),
    ];
  if (kind === 14)
    return [
      ...blocksOf({
        name: "g",
        type: "g",
        data: paxRecord(
          random.pick(wild ? ["comment", "uid", "size"] : ["comment"]),
          String(random.next(99)),
        ),
      }),
    ];
  if (kind === 15) return members(random, wild, { ...common, type: random.pick(types), data });
  if (kind === 16) return [random.bytes(512)];
  return members(random, wild, {
    ...common,
    data,
    size: random.pick([0, 1, 2 ** 33 - 1, 2 ** 40, 2 ** 53 - 1, data.length + 512]),
    format: "gnu",
  });
}

/** A member with, now and then, a pax header before it. */
function members(random: SeededRandom, wild: boolean, member: KitMember): Buffer[] {
  // GNU tar lets a pax name win over its own long one, Go's reader, Docker's, the other way about: we follow that.
  const long = Math.max(member.name.length, (member.link ?? "").length) > 100;
  if (random.next(3) > 0 || (long && !wild)) return blocksOf(member);
  const records: Buffer[] = [];
  for (let left = 1 + random.next(4); left > 0; left -= 1) records.push(randomRecord(random, wild));
  const data = Buffer.concat(records);
  return [...blocksOf({ name: "PaxHeaders/x", type: "x", data }), ...blocksOf(member)];
}

function randomRecord(random: SeededRandom, wild: boolean): Buffer {
  const soundOrWild = (sound: string): string =>
    wild && random.next(2) === 0 ? random.pick(numbers) : sound;
  switch (random.next(wild ? 12 : 7)) {
    case 0:
      return paxRecord("path", randomPath(random, wild) || "x");
    case 1:
      return paxRecord(
        "mtime",
        soundOrWild(`${random.next(2) === 0 ? "-" : ""}${random.next(2 ** 31)}.${random.next(1e9)}`),
      );
    case 2:
      return paxRecord(random.pick(["uid", "gid"]), soundOrWild(String(random.next(2 ** 31) * 2)));
    case 3:
      return paxRecord(
        `SCHILY.xattr.user.${random.pick(names).slice(0, 200)}`,
        random.bytes(random.next(300)),
      );
    case 4:
      return paxRecord("LIBARCHIVE.xattr.user.l%61", random.bytes(30).toString("base64"));
    case 5:
      return paxRecord(random.pick(["comment", "SCHILY.dev", "uname", "VENDOR.x"]), "of no matter");
    case 6:
      return paxRecord(
        `SCHILY.xattr.${random.pick(["security.capability", "trusted.overlay.opaque", "system.posix_acl_access"])}`,
        random.bytes(20),
      );
    case 7:
      return paxRecord("size", random.pick(numbers));
    case 8:
      return paxRecord("linkpath", randomPath(random, true));
    case 9:
      return paxRecord(
        random.pick([
          "GNU.sparse.size",
          "GNU.sparse.major",
          "GNU.sparse.minor",
          "GNU.sparse.realsize",
          "GNU.sparse.offset",
          "GNU.sparse.numbytes",
        ]),
        random.pick(numbers),
      );
    case 10:
      return paxRecord("GNU.sparse.map", [0, 1, 2, 3].map(() => random.pick(numbers)).join(","));
    default:
      return Buffer.from(
        random.pick(["", "0 a=b\n", "6 a=b\n", "7 a=b\n", "99999999 a=b\n", " a=b\n", "5 ab\n", "\0"]),
      );
  }
}

function oldSparse(random: SeededRandom, name: string, wild: boolean): Buffer[] {
  const { segments, data, realSize } = randomSegments(random, wild);
  const first = segments.slice(0, 4);
  const rest = segments.slice(4);
  const write = (block: Buffer, at: number, list: typeof segments): void => {
    for (const [index, [offset, length]] of list.entries()) {
      octal(block, offset, at + index * 24, 12);
      octal(block, length, at + index * 24 + 12, 12);
    }
  };
  const blocks = [
    header({
      name: name.slice(0, 100),
      type: "S",
      format: "gnu",
      size: data.length,
      edit: (block) => {
        write(block, 386, first);
        block[482] = rest.length > 0 ? 1 : 0;
        octal(block, realSize, 483, 12);
      },
    }),
  ];
  for (let at = 0; at < rest.length; at += 21) {
    const block = Buffer.alloc(512);
    write(block, 0, rest.slice(at, at + 21));
    block[504] = at + 21 < rest.length ? 1 : 0;
    blocks.push(block);
  }
  return [...blocks, padded(data)];
}

function paxSparse(random: SeededRandom, name: string, wild: boolean): Buffer[] {
  const { segments, data, realSize } = randomSegments(random, wild);
  const size = String(realSize);
  const flat = segments.flat().map(String);
  const pax = (records: Buffer[], content: Buffer): Buffer[] => [
    ...blocksOf({ name: "PaxHeaders/s", type: "x", data: Buffer.concat(records) }),
    ...blocksOf({ name, data: content }),
  ];
  if (random.next(3) === 0)
    return pax(
      [
        paxRecord("GNU.sparse.size", size),
        paxRecord("GNU.sparse.numblocks", String(segments.length)),
        paxRecord("GNU.sparse.map", flat.join(",")),
      ],
      data,
    );
  if (random.next(2) === 0) {
    const pairs = segments.flatMap(([offset, length]) => [
      paxRecord("GNU.sparse.offset", String(offset)),
      paxRecord("GNU.sparse.numbytes", String(length)),
    ]);
    return pax(
      [
        paxRecord("GNU.sparse.size", size),
        paxRecord("GNU.sparse.numblocks", String(segments.length)),
        ...pairs,
      ],
      data,
    );
  }
  const map = padded(Buffer.from([segments.length, ...flat].map((line) => `${line}\n`).join("")));
  const records = [
    paxRecord("GNU.sparse.major", "1"),
    paxRecord("GNU.sparse.minor", "0"),
    paxRecord("GNU.sparse.name", name || "s"),
    paxRecord("GNU.sparse.realsize", size),
  ];
  return pax(records, Buffer.concat([map, data]));
}

function randomSegments(
  random: SeededRandom,
  wild: boolean,
): { segments: [number, number][]; data: Buffer; realSize: number } {
  const segments: [number, number][] = [];
  let end = 0;
  let stored = 0;
  for (let left = (wild ? 0 : 1) + random.next(30); left > 0; left -= 1) {
    const offset = end + random.next(wild && random.next(20) === 0 ? 2 ** 31 : 20_000);
    const length = random.next(3000);
    segments.push([offset, length]);
    end = offset + length;
    stored += length;
  }
  if (wild && segments.length > 0 && random.next(4) === 0)
    segments[random.next(segments.length)] = [
      random.next(2 ** 31) * random.pick([1, 2 ** 20, -1]),
      random.next(2 ** 31),
    ];
  return { segments, data: random.bytes(stored), realSize: end + random.next(10_000) };
}

function randomPath(random: SeededRandom, wild: boolean): string {
  const parts = Array.from({ length: 1 + random.next(3) }, () =>
    wild && random.next(8) === 0 ? random.pick(hostileParts) : random.pick(names),
  );
  const path = parts.join("/");
  return wild && random.next(10) === 0 ? `/${path}/` : path;
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/") + 1);
}

/** The blocks of a member; a name or link that a header cannot hold stands in a GNU extension before it. */
function blocksOf(member: KitMember): Buffer[] {
  const long: KitMember[] = [];
  if (member.name.length > 100) long.push(gnuLong("L", member.name));
  if ((member.link ?? "").length > 100) long.push(gnuLong("K", member.link ?? ""));
  return [
    ...long,
    { ...member, name: member.name.slice(0, 100), link: (member.link ?? "").slice(0, 100) },
  ].flatMap((each) => [header(each), ...(each.data === undefined ? [] : [padded(each.data)])]);
}
