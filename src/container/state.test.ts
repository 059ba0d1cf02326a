import { expect, test } from "bun:test";
import { endedContainerStates } from "../db/schema.ts";
import type { ContainerError } from "./error.ts";
import {
  assertTransition,
  type ContainerState,
  containerStates,
  isEnded,
  isLegalTransition,
  livingStates,
  parseContainerState,
  placedStates,
} from "./state.ts";

/** Written out by hand, row by row: from, then a mark for each state in the order of the columns. */
const table = `
           pending scheduled preparing running stopping exited failed stopped
pending    .       x         .         .       .        .      x      x
scheduled  x       .         x         .       .        .      x      x
preparing  .       .         .         x       .        .      x      x
running    .       .         .         .       x        x      x      x
stopping   .       .         .         .       .        x      x      x
exited     .       .         .         .       .        .      .      .
failed     .       .         .         .       .        .      .      .
stopped    .       .         .         .       .        .      .      .
`;

const [columns = [], ...rows] = table
  .trim()
  .split("\n")
  .map((line) => line.trim().split(/ +/));

test("the table below covers all pairs of states", () => {
  expect(columns).toEqual([...containerStates]);
  expect(rows.map((row) => row[0])).toEqual([...containerStates]);
});

for (const [from = "", ...marks] of rows) {
  for (const [index, mark] of marks.entries()) {
    const to = columns[index] as ContainerState;
    test(`${from} → ${to} is ${mark === "x" ? "legal" : "refused"}`, () => {
      expect(isLegalTransition(from as ContainerState, to)).toBe(mark === "x");
      const step = () => assertTransition(from as ContainerState, to);
      if (mark === "x") expect(step).not.toThrow();
      else expect(step).toThrow(`a container cannot go from ${from} to ${to}`);
    });
  }
}

test("nothing follows an ended state, and each other state can end", () => {
  const ended = containerStates.filter(isEnded);
  expect(ended).toEqual(["exited", "failed", "stopped"]);
  expect([...endedContainerStates]).toEqual(ended);
  expect([...livingStates, ...ended].sort()).toEqual([...containerStates].sort());
  expect(livingStates.filter((state) => !placedStates.includes(state))).toEqual(["pending"]);
  for (const state of livingStates) expect(ended.some((end) => isLegalTransition(state, end))).toBe(true);
});

test("reads a state's name, and refuses what is none", () => {
  for (const state of containerStates) expect(parseContainerState(state)).toBe(state);
  for (const text of ["", "Pending", "toString"]) {
    expect(() => parseContainerState(text)).toThrow("is no state of a container");
  }
  const thrown = (() => {
    try {
      parseContainerState("x");
    } catch (error) {
      return error as ContainerError;
    }
    return undefined;
  })();
  expect(thrown?.code).toBe("illegal_transition");
});
