import { expect, test } from "bun:test";
import { issuedScope } from "./scope.ts";

test.each([
  ["123456789012.dkr.ecr.eu-west-1.amazonaws.com", "account 123456789012"],
  ["europe-docker.pkg.dev", "at Google, not europe-docker.pkg.dev alone"],
  ["acme.azurecr.io", "every repository of acme.azurecr.io"],
])("what an issuer makes for %s is said to open more than one repository", (registry, words) => {
  expect(issuedScope(registry)).toContain(words);
});

test("of other registries nothing is said", () => {
  expect(["ghcr.io", "gcr.io.evil.com", "azurecr.io.evil.com"].map(issuedScope)).toEqual(
    Array(3).fill(undefined),
  );
});
