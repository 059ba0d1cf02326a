import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PrivateFileError, readPrivateFile } from "./private-file.ts";
import { run } from "./spawn.ts";

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "oci-node-private-"));
  path = join(dir, "secret");
  writeFileSync(path, "value");
});
afterEach(() => rmSync(dir, { recursive: true }));

const rules = { alone: { holds: "a token" }, group: { holds: "a token", groupMayRead: true } };

test.each([
  [0o600, "alone"],
  [0o400, "alone"],
  [0o711, "alone"],
  [0o640, "group"],
  [0o440, "group"],
] as const)("mode %o is read (%s)", (mode, rule) => {
  chmodSync(path, mode);
  expect(readPrivateFile(path, rules[rule])).toBe("value");
});

test.each([
  [0o640, "alone", "read"],
  [0o604, "alone", "read"],
  [0o644, "group", "read"],
  [0o602, "alone", "write"],
  [0o660, "group", "write"],
] as const)(
  "mode %o is refused (%s), and the command that is told makes it right",
  async (mode, rule, what) => {
    chmodSync(path, mode);
    let refused: unknown;
    try {
      readPrivateFile(path, rules[rule]);
    } catch (error) {
      refused = error;
    }
    expect(refused).toBeInstanceOf(PrivateFileError);
    const { message, next = "" } = refused as PrivateFileError;
    expect(message).toBe(`${path} holds a token, and others can ${what} it`);
    const command = /^Run: (chmod .*)$/.exec(next)?.[1] ?? "";
    await run(command.split(" "));
    expect(readPrivateFile(path, rules[rule])).toBe("value");
  },
);

test("what a link leads to is looked at, not the link", () => {
  const link = join(dir, "link");
  symlinkSync(path, link);
  chmodSync(path, 0o644);
  expect(() => readPrivateFile(link, rules.alone)).toThrow("others can read it");
  chmodSync(path, 0o600);
  expect(readPrivateFile(link, rules.alone)).toBe("value");
});
