import { expect, test } from "bun:test";
import { ContainerError } from "./error.ts";
import { defaultOptions } from "./options.ts";
import { checkSpec } from "./spec.ts";

const plain = {
  workspaceId: "w",
  imageId: "img-1",
  reference: "r",
  command: ["sh"],
  env: {},
  network: "none" as const,
  options: defaultOptions,
  eager: false,
  cpuMillis: 0,
  memoryBytes: 0,
};
const longest = "x".repeat(128 * 1024 - 1);

test.each([
  [{}],
  [{ command: [] }],
  [{ command: ["printf", "\\u0000"], env: { "with space": "\\u0000", ä: "\u202e\n" } }],
  [{ command: [longest], env: { K: longest.slice(2) } }],
  [{ command: Array.from({ length: 100_000 }, () => "") }],
  [{ cpuMillis: 1, memoryBytes: 4 * 1024 * 1024 }],
])("takes what a worker can start: case %#", (change) => {
  checkSpec({ ...plain, ...change });
});

test.each([
  ["argument 2 of the command holds a NUL", { command: ["sh", "a\0b"] }],
  ["argument 1 of the command is longer", { command: [`${longest}x`] }],
  ["variable K holds a NUL", { env: { K: "hunter2\0" } }],
  ["variable K is longer", { env: { K: `hunter2${longest}` } }],
  ['"" cannot name a variable', { env: { "": "hunter2" } }],
  ['"A=B" cannot name a variable', { env: { "A=B": "hunter2" } }],
  ["\\\\u{202e}", { env: { "\u202e=": "hunter2" } }],
  ["1200000 bytes; 1048576 are allowed", { command: Array.from({ length: 12 }, () => "x".repeat(99_999)) }],
  ["number of CPUs", { cpuMillis: -1 }],
  ["number of CPUs", { cpuMillis: 2 ** 31 }],
  ["memory limit", { memoryBytes: -1 }],
  ["memory limit", { memoryBytes: 1024 }],
  ["memory limit", { memoryBytes: 2 ** 63 }],
])("refuses, with %p", (told, change) => {
  const check = () => checkSpec({ ...plain, ...(change as object) });
  expect(check).toThrow(ContainerError);
  expect(check).toThrow(told);
  expect(check).not.toThrow("hunter2");
});
