import { expect, test } from "bun:test";
import { LogParser } from "./log-format.ts";

const time = "2026-03-01T10:00:00.123456789+00:00";
const bytes = (text: string): Buffer => Buffer.from(text, "latin1");

function parse(text: string, sizes: readonly number[] = [text.length]) {
  const parser = new LogParser();
  let at = 0;
  return sizes.flatMap((size) => {
    const chunks = parser.push(bytes(text).subarray(at, at + size));
    at += size;
    return chunks.map(({ stream, time: when, data }) => ({
      stream,
      time: when.toISOString(),
      data: Buffer.from(data).toString("latin1"),
    }));
  });
}

test("gives a line its newline, and a part none", () => {
  expect(parse(`${time} stdout F whole\n`)).toEqual([
    { stream: "stdout", time: "2026-03-01T10:00:00.123Z", data: "whole\n" },
  ]);
  expect(parse(`${time} stderr P part\n`)[0]).toMatchObject({ stream: "stderr", data: "part" });
  expect(parse(`${time} stdout F \n`)[0]?.data).toBe("\n");
});

test("keeps bytes that are no text, spaces and carriage returns", () => {
  expect(parse(`${time} stdout F  \0\xff\xfe\r \t\n`)[0]?.data).toBe(" \0\xff\xfe\r \t\n");
});

test("joins what was read at once, and nothing else", () => {
  const later = time.replace("123", "124");
  const text = `${time} stdout F a\n${time} stdout F b\n${time} stderr F c\n${time} stdout F d\n${later} stdout P e\n`;
  expect(parse(text).map(({ data }) => data)).toEqual(["a\nb\n", "c\n", "d\n", "e"]);
});

test("waits for the rest of a line that is cut anywhere", () => {
  const text = `${time} stdout F first\n${time} stdout P second\n`;
  for (let cut = 0; cut <= text.length; cut += 1) {
    const data = parse(text, [cut, text.length - cut]).map((chunk) => chunk.data);
    expect(data.join("")).toBe("first\nsecond");
  }
});

test("passes over lines that are not of the format", () => {
  expect(
    parse(`nonsense\n\n${time} stdin F x\n${time} stdout\n${time} stdout F ok\n`).map(({ data }) => data),
  ).toEqual(["ok\n"]);
});
