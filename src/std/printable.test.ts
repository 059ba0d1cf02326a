import { expect, test } from "bun:test";
import { hasHiddenCharacter, printable, printableJson } from "./printable.ts";

test.each([
  ["plain text, ä, 漢字 and 🦀", "plain text, ä, 漢字 and 🦀"],
  ["a\0b\nc\u001b[31m\u009b", "a\\u{0}b\\u{a}c\\u{1b}[31m\\u{9b}"],
  ["\u202eevil\u2066\u200b\ufeff", "\\u{202e}evil\\u{2066}\\u{200b}\\u{feff}"],
  ["a\u2028b\u2029", "a\\u{2028}b\\u{2029}"],
  ["half \ud800 and \udc00", "half \\u{d800} and \\u{dc00}"],
])("%p shows as %p", (text, shown) => {
  expect(printable(text)).toBe(shown);
  expect(hasHiddenCharacter(text)).toBe(text !== shown);
});

test("what is too long is cut, never in the middle of what it is written as, with its length", () => {
  expect(printable("x".repeat(200))).toBe("x".repeat(200));
  expect(printable("x".repeat(1_000_000), 10)).toBe(`${"x".repeat(10)}… (1000000 characters)`);
  expect(printable("x🦀", 2)).toBe("x\\u{d83e}… (3 characters)");
  expect(printable("\0".repeat(3), 2)).toBe("\\u{0}\\u{0}… (3 characters)");
});

test("JSON keeps its value and its lines, and hides nothing", () => {
  const value = { "\u009bname": ["a\u001b\u007f\n", "\u202e\u2028", "\u{e0001}", "ä漢🦀"], size: 5 };
  const text = printableJson(value, 2);
  expect(JSON.parse(text)).toEqual(value);
  expect(hasHiddenCharacter(text.replaceAll("\n", ""))).toBe(false);
  expect(text.split("\n")).toHaveLength(9);
  expect(text).toContain("ä漢🦀");
  expect(printableJson({ bytes: 12n })).toBe('{"bytes":12}');
});
