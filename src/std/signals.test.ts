import { expect, test } from "bun:test";
import { signalName, signalNumber } from "./signals.ts";

test("reads signals as images write them", () => {
  const cases = {
    SIGTERM: 15,
    term: 15,
    "15": 15,
    SIGQUIT: 3,
    "SIGRTMIN+3": 37,
    RTMIN: 34,
    "SIGRTMAX-1": 63,
    "64": 64,
  };
  for (const [text, number] of Object.entries(cases)) expect(signalNumber(text)).toBe(number);
});

test("refuses what is no signal", () => {
  for (const text of ["", "0", "65", "SIGNOT", "SIGRTMIN-1", "SIGRTMAX+1", "-9", "toString"]) {
    expect(signalNumber(text)).toBeUndefined();
  }
});

test("names signals by their number", () => {
  expect([9, 15, 34, 37, 0, 65].map(signalName)).toEqual([
    "SIGKILL",
    "SIGTERM",
    "SIGRTMIN",
    "SIGRTMIN+3",
    undefined,
    undefined,
  ]);
});
