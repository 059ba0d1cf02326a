import { expect, test } from "bun:test";
import { CliError } from "./context.ts";
import { parseExpiry } from "./expiry.ts";

const now = Date.parse("2026-11-26T12:00:00Z");

test("an end is a span from now, a day or a time", () => {
  const ends = ["90s", "12h", "30d", "8w", "2027-01-01", "2027-01-01T08:30:00+01:00"];
  expect(ends.map((text) => parseExpiry(text, now).toISOString())).toEqual([
    "2026-11-26T12:01:30.000Z",
    "2026-11-27T00:00:00.000Z",
    "2026-12-26T12:00:00.000Z",
    "2027-01-21T12:00:00.000Z",
    "2027-01-01T00:00:00.000Z",
    "2027-01-01T07:30:00.000Z",
  ]);
});

test("what is no time is refused, by what was written", () => {
  for (const text of [
    "",
    "0d",
    "soon",
    "-3d",
    "2027-02-30",
    "2027-13-01",
    "2027-01-01T25:00:00Z",
    "30 days",
    "1e3d",
  ]) {
    const thrown = (() => {
      try {
        return parseExpiry(text, now);
      } catch (error) {
        return error;
      }
    })();
    expect(thrown).toBeInstanceOf(CliError);
    expect((thrown as CliError).message).toBe(`${JSON.stringify(text)} is no time`);
  }
});
