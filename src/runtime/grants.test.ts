import { expect, test } from "bun:test";
import { RegistryError } from "../registry/error.ts";
import { AccessGrants, type GrantKey } from "./grants.ts";

const key: GrantKey = {
  workspaceId: "a",
  repository: "r.example/x",
  manifestDigest: "sha256:1",
  credential: "v1",
};
const manifest = { mediaType: "m", digest: "sha256:1", size: 1 };

test("asks the registry once while a grant lives, and again after it has expired", async () => {
  let now = 0;
  let asked = 0;
  const grants = new AccessGrants(1000, () => now);
  const ask = async () => {
    asked += 1;
    return manifest;
  };
  expect(await grants.prove(key, ask)).toBe("asked");
  expect(await grants.prove(key, ask)).toBe("granted");
  now = 1001;
  expect(await grants.prove(key, ask)).toBe("asked");
  expect(asked).toBe(2);
});

test("one workspace's grant is no other's, and a rotated credential must prove itself", async () => {
  const grants = new AccessGrants();
  const ask = async () => manifest;
  await grants.prove(key, ask);
  expect(await grants.prove({ ...key, workspaceId: "b" }, ask)).toBe("asked");
  expect(await grants.prove({ ...key, credential: "v2" }, ask)).toBe("asked");
});

test("a refusal leaves no grant", async () => {
  const grants = new AccessGrants();
  const refusal = new Error("refused");
  expect(grants.prove(key, () => Promise.reject(refusal))).rejects.toBe(refusal);
  expect(await grants.prove(key, async () => manifest)).toBe("asked");
});

test("who asks together shares the registry's refusal, but not the end of the one who asked", async () => {
  const grants = new AccessGrants();
  let asked = 0;
  const fails = (error: Error) => async () => {
    asked += 1;
    await Promise.resolve();
    throw error;
  };
  const ended = new Error("its container was stopped");
  const [first, second] = [grants.prove(key, fails(ended)), grants.prove(key, async () => manifest)];
  expect(await Promise.allSettled([first, second])).toMatchObject([{ reason: ended }, { value: "asked" }]);
  const refusal = new RegistryError("denied", "no", { registry: "r", repository: "p" });
  const another = { ...key, credential: "v2" };
  const both = [grants.prove(another, fails(refusal)), grants.prove(another, async () => manifest)];
  expect(await Promise.allSettled(both)).toMatchObject([{ reason: refusal }, { reason: refusal }]);
  expect(asked).toBe(2);
});
