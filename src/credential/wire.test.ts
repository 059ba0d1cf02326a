import { expect, test } from "bun:test";
import { CredentialError } from "./error.ts";
import { credentialsFromWire, credentialsToWire } from "./wire.ts";

const value = "hunter2canary";

test.each<[string, Record<string, string>]>([
  ["a key that nobody knows", { PASSWORT: value }],
  ["a key that is a value", { [value]: value }],
  ["a key that every object has", { constructor: value }],
  ["an empty value", { PASSWORD: "" }],
  ["NUL", { PASSWORD: `${value}\0` }],
  ["a line break", { PASSWORD: `${value}\n` }],
  ["half of a surrogate pair", { PASSWORD: `${value}\ud800` }],
  ["a value of more than 16 KiB", { PASSWORD: value.repeat(2000) }],
  ["a name that turns text around", { USERNAME: "\u202eroot" }],
  ["a name with what does not show", { GITHUB_USERNAME: "ro\u200bot" }],
  ["a name that fits into no index", { AWS_ROLE_ARN: "é".repeat(1025) }],
])("%s is refused as on the command line, without the value", (_, values) => {
  const read = () => credentialsFromWire(values);
  expect(read).toThrow(CredentialError);
  expect(read).not.toThrow(value);
});

test("what may be kept comes back as it was", () => {
  const values = { USERNAME: "robot$é🦀", PASSWORD: "\u202e p'\"=ä ", AWS_ROLE_ARN: "é".repeat(1024) };
  expect(credentialsToWire(credentialsFromWire(values))).toEqual(values);
});
