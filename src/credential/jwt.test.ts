import { expect, test } from "bun:test";
import { Redacted } from "../std/redacted.ts";
import { tokenEndsAtMs } from "./jwt.ts";

test.each([
  ["1767225600", 1_767_225_600_000],
  ["0", 0],
  ["1e300", undefined],
  ["1e999", undefined],
  ["-1e20", undefined],
  ['"1767225600"', undefined],
  ["null", undefined],
])("a token whose exp is %s", (exp, expected) => {
  const claims = Buffer.from(`{"exp":${exp}}`).toString("base64url");
  const endsAtMs = tokenEndsAtMs(new Redacted(`h.${claims}.s`));
  expect(endsAtMs).toBe(expected);
});

test.each(["", "a.b", "a.b.c.d", "h.eyJ.s", `h.${Buffer.from("[]").toString("base64url")}.s`])(
  "%p is no token with an end",
  (text) => {
    expect(tokenEndsAtMs(new Redacted(text))).toBeUndefined();
  },
);
