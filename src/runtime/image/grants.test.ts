import { expect, test } from "bun:test";
import { RegistryError } from "../../registry/error.ts";
import { AccessGrants, type GrantKey } from "./grants.ts";

const key: GrantKey = {
  workspaceId: "a",
  repository: "r.example/x",
  manifestDigest: "sha256:1",
  credential: "v1",
};
const lifeMs = 1000;
const askedNow = async () => 0;

function scene() {
  const clock = { nowMs: 0 };
  return { clock, grants: new AccessGrants(() => clock.nowMs) };
}

test("asks the registry once while a grant lives, and again after it has expired", async () => {
  const { clock, grants } = scene();
  let asked = 0;
  const ask = async () => {
    asked += 1;
    return 0;
  };
  expect(await grants.prove(key, lifeMs, ask)).toBe("asked");
  clock.nowMs = 999;
  expect(await grants.prove(key, lifeMs, ask)).toBe("granted");
  clock.nowMs = 1000;
  expect(await grants.prove(key, lifeMs, ask)).toBe("asked");
  expect(asked).toBe(2);
});

test("a grant is as old as the credential's own use, not as the answer that came of it", async () => {
  const { clock, grants } = scene();
  await grants.prove(key, lifeMs, async () => 600);
  clock.nowMs = 399;
  expect(await grants.prove(key, lifeMs, askedNow)).toBe("granted");
  clock.nowMs = 400;
  expect(await grants.prove(key, lifeMs, async () => 900)).toBe("asked");
  grants.give(key, 100);
  clock.nowMs = 1299;
  expect(await grants.prove(key, lifeMs, askedNow)).toBe("granted");
  // What is heard late of an older proof takes nothing away.
  grants.give(key, 5000);
  expect(grants.agoMs(key)).toBe(999);
});

test("without a life everybody is asked for, however young the last proof is", async () => {
  const { grants } = scene();
  for (let start = 0; start < 3; start += 1) expect(await grants.prove(key, 0, askedNow)).toBe("asked");
  grants.give(key, 0);
  expect(await grants.prove(key, 0, askedNow)).toBe("asked");
});

test("a life that the operator shortens holds for what was proved before, too", async () => {
  const { clock, grants } = scene();
  grants.give(key, 0);
  clock.nowMs = 500;
  expect(await grants.prove(key, lifeMs, askedNow)).toBe("granted");
  expect(await grants.prove(key, 400, askedNow)).toBe("asked");
});

test("one workspace's grant is no other's, nor another image's, and a rotated credential must prove itself", async () => {
  const { grants } = scene();
  await grants.prove(key, lifeMs, askedNow);
  const others = {
    workspaceId: "b",
    repository: "evil.example/x",
    manifestDigest: "sha256:2",
    credential: "v2",
  };
  for (const [field, value] of Object.entries(others))
    expect(await grants.prove({ ...key, [field]: value }, lifeMs, askedNow)).toBe("asked");
});

test("a refusal leaves no grant, and an outage leaves the one there is until its end", async () => {
  const { clock, grants } = scene();
  const refusal = new Error("refused");
  await expect(grants.prove(key, lifeMs, () => Promise.reject(refusal))).rejects.toBe(refusal);
  expect(await grants.prove(key, lifeMs, askedNow)).toBe("asked");
  const away = () =>
    Promise.reject(new RegistryError("unreachable", "no answer", { registry: "r", repository: "p" }));
  clock.nowMs = 999;
  expect(await grants.prove(key, lifeMs, away)).toBe("granted");
  clock.nowMs = 1000;
  await expect(grants.prove(key, lifeMs, away)).rejects.toMatchObject({ code: "unreachable" });
  expect(grants.agoMs(key)).toBe(1000);
  grants.forget(key);
  expect(grants.agoMs(key)).toBeUndefined();
});

test("a clock that is set back makes no grant live longer", async () => {
  const { clock, grants } = scene();
  clock.nowMs = 100_000;
  grants.give(key, 0);
  clock.nowMs = 0;
  expect(await grants.prove(key, lifeMs, askedNow)).toBe("asked");
});

test("who asks together shares the registry's refusal, but not the end of the one who asked", async () => {
  const { grants } = scene();
  let asked = 0;
  const fails = (error: Error) => async () => {
    asked += 1;
    await Promise.resolve();
    throw error;
  };
  const ended = new Error("its container was stopped");
  const [first, second] = [grants.prove(key, lifeMs, fails(ended)), grants.prove(key, lifeMs, askedNow)];
  expect(await Promise.allSettled([first, second])).toMatchObject([{ reason: ended }, { value: "asked" }]);
  const refusal = new RegistryError("denied", "no", { registry: "r", repository: "p" });
  const another = { ...key, credential: "v2" };
  const both = [grants.prove(another, lifeMs, fails(refusal)), grants.prove(another, lifeMs, askedNow)];
  expect(await Promise.allSettled(both)).toMatchObject([{ reason: refusal }, { reason: refusal }]);
  expect(asked).toBe(2);
});
