import { expect, test } from "bun:test";
import { printable } from "./printable.ts";

test("user name and password before a host are left out, a digest is not", () => {
  expect(printable("ann:hunter2@registry.example/app")).toBe("…@registry.example/app");
  expect(printable("ann:hun:ter2@registry.example/app")).toBe("…@registry.example/app");
  expect(printable("https://ann:hun ter@registry.example")).toBe("https://…@registry.example");
  const digest = `registry.example:5000/app:1@sha256:${"0".repeat(64)}`;
  expect(printable(digest)).toBe(digest);
});

// With a pattern that tries every pair of colons the first of these takes minutes, in which the whole process answers nobody.
test.each([":", "a:", "//:", "//a:a", ":@sha256:"])(
  "whoever sends %p over and over holds up nobody",
  (part) => {
    expect(printable(part.repeat((512 * 1024) / part.length)).length).toBeLessThanOrEqual(255);
  },
  20_000,
);
