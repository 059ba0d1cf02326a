import { expect, test } from "bun:test";
import { SpanCutter } from "./span-cutter.ts";

const layer = Uint8Array.from({ length: 100 }, (_, index) => index);
/** The second span begins with the last byte of the first; bytes 60 to 69 belong to none. */
const spans = [
  { compOffset: 5, compLength: 20 },
  { compOffset: 24, compLength: 36 },
  { compOffset: 70, compLength: 30 },
];
const table = {
  spanCount: spans.length,
  span: (index: number) => spans[index] ?? { compOffset: 0, compLength: 0 },
};

function cut(chunkBytes: number, wanted: (span: number) => boolean): [number, number[]][] {
  const cutter = new SpanCutter(table, wanted);
  const found: [number, number[]][] = [];
  for (let at = 0; at < layer.length; at += chunkBytes)
    for (const { span, bytes } of cutter.push(layer.subarray(at, at + chunkBytes)))
      found.push([span, [...bytes]]);
  return found;
}

function bytesOf(span: number): number[] {
  const { compOffset, compLength } = table.span(span);
  return [...layer.subarray(compOffset, compOffset + compLength)];
}

test("every span comes out whole, whatever the chunks", () => {
  for (const chunkBytes of [1, 7, 25, 64, 100])
    expect(cut(chunkBytes, () => true)).toEqual([0, 1, 2].map((span) => [span, bytesOf(span)]));
});

test("spans that nobody wants are left out", () => {
  expect(cut(10, (span) => span !== 1)).toEqual([0, 2].map((span) => [span, bytesOf(span)]));
});
