import { expect, test } from "bun:test";
import { SecretError } from "./error.ts";
import { createUnderFreeName } from "./free-name.ts";

/** A place for secrets in which some names are taken. */
function creator(...taken: readonly string[]) {
  return async (name: string) => {
    if (taken.includes(name)) throw new SecretError("exists", `the secret ${name} exists`);
    return name;
  };
}

test("takes the first name that is free", async () => {
  expect(await createUnderFreeName(["a", "b", "c"], creator("a"))).toBe("b");
});

test("says that the last one exists when all are taken", async () => {
  expect(createUnderFreeName(["a", "b"], creator("a", "b"))).rejects.toThrow("the secret b exists");
});

test("tries no other name after a failure of another kind", async () => {
  const tried: string[] = [];
  const failing = async (name: string) => {
    tried.push(name);
    throw new SecretError("too_large", "the value is too large");
  };
  expect(createUnderFreeName(["a", "b"], failing)).rejects.toThrow("too large");
  expect(tried).toEqual(["a"]);
});
