import { expect, test } from "bun:test";
import { variablesOf } from "./variable.ts";

test("a name alone is the caller's variable, and none where he has none", () => {
  const caller = { MINE: "here", EMPTY: "" };
  expect(variablesOf(["A=1", "A=2=3", "MINE", "EMPTY", "ABSENT", "NONE="], caller)).toEqual({
    A: "2=3",
    MINE: "here",
    EMPTY: "",
    NONE: "",
  });
});
