import type { SeededRandom } from "../../src/index/tar.test-kit.ts";

/** Numbers at whose borders readers go wrong. */
const bordersOf = (bits: number): bigint[] => {
  const top = 1n << BigInt(bits);
  return [
    0n,
    1n,
    top - 1n,
    top - 2n,
    top >> 1n,
    (top >> 1n) - 1n,
    top - 4096n,
    4095n,
    4096n,
    4097n,
    1n << 7n,
  ];
};
const borders = { 1: bordersOf(8), 2: bordersOf(16), 4: bordersOf(32), 8: bordersOf(64) };
const widths = [1, 2, 4, 8] as const;

/** A copy of the bytes with a few changes of the kinds that break readers: bits, numbers, lengths, pieces moved. */
export function mutate(bytes: Uint8Array, random: SeededRandom, changesMax = 4): Buffer {
  let changed: Buffer = Buffer.from(bytes);
  for (let left = 1 + random.next(changesMax); left > 0; left -= 1) changed = change(changed, random);
  return changed;
}

function change(bytes: Buffer, random: SeededRandom): Buffer {
  if (bytes.length === 0) return random.bytes(1 + random.next(64));
  const at = random.next(bytes.length);
  switch (random.next(9)) {
    case 0:
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.next(8));
      return bytes;
    case 1:
      bytes[at] = random.next(256);
      return bytes;
    case 2:
    case 3:
      return putNumber(bytes, at, random);
    case 4:
      return bytes.subarray(0, at);
    case 5: {
      const piece = bytes.subarray(at, at + 1 + random.next(Math.min(600, bytes.length - at)));
      const to = random.next(bytes.length);
      return Buffer.concat([bytes.subarray(0, to), piece, bytes.subarray(to)]);
    }
    case 6:
      return Buffer.concat([
        bytes.subarray(0, at),
        bytes.subarray(at + 1 + random.next(Math.min(600, bytes.length - at))),
      ]);
    case 7:
      bytes.copy(bytes, random.next(bytes.length), at, Math.min(bytes.length, at + 1 + random.next(64)));
      return bytes;
    default:
      bytes.fill(random.pick([0, 0xff, 0x30, 0x20]), at, Math.min(bytes.length, at + 1 + random.next(16)));
      return bytes;
  }
}

/** Writes a border, or a neighbour of what stands there, as a little- or big-endian number. */
function putNumber(bytes: Buffer, anywhere: number, random: SeededRandom): Buffer {
  const width = random.pick(widths);
  // Numbers of binary tables stand on multiples of their width.
  const at = random.next(4) > 0 ? anywhere - (anywhere % width) : anywhere;
  if (at + width > bytes.length) return bytes;
  const little = random.next(4) > 0;
  let old = 0n;
  for (let byte = 0; byte < width; byte += 1)
    old = (old << 8n) | BigInt(bytes[little ? at + width - 1 - byte : at + byte] ?? 0);
  const near = BigInt.asUintN(width * 8, old + BigInt(random.next(33) - 16));
  let value = random.next(2) === 0 ? near : random.pick(borders[width]);
  for (let byte = 0; byte < width; byte += 1) {
    bytes[little ? at + byte : at + width - 1 - byte] = Number(value & 0xffn);
    value >>= 8n;
  }
  return bytes;
}
