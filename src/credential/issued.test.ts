import { describe, expect, test } from "bun:test";
import { Redacted } from "../std/redacted.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { RegistryAuthorization } from "./provider.ts";

const minute = 60_000;
const rule = { lifeMs: 60 * minute, marginMs: 5 * minute };

/** An issuer that counts, on a clock that stands still until it is moved. */
function setUp(lifeMs: number | undefined, patienceMs?: number) {
  const state = { nowMs: 0, asked: 0, fails: false, gate: undefined as Promise<void> | undefined };
  const issued = new IssuedAuthorizations(() => state.nowMs, patienceMs);
  const issue = async (): Promise<RegistryAuthorization> => {
    state.asked += 1;
    const number = state.asked;
    await state.gate;
    if (state.fails) throw new Error(`failure ${number}`);
    const expiresAt = lifeMs === undefined ? undefined : new Date(state.nowMs + lifeMs);
    const token = new Redacted(`token-${number}`);
    return expiresAt === undefined ? { kind: "bearer", token } : { kind: "bearer", token, expiresAt };
  };
  const get = async (refresh = false): Promise<string> => {
    const authorization = await issued.get("key", rule, issue, { refresh });
    return authorization.kind === "bearer" ? authorization.token.expose() : authorization.kind;
  };
  return { state, get };
}

describe("issued authorizations", () => {
  test.each([
    ["an hour", 60 * minute, 55 * minute],
    ["less than twice the margin", 4 * minute, 2 * minute],
    ["no known life, by the rule,", undefined, 55 * minute],
  ])("are renewed in time when they have %s", async (_, lifeMs, renewAtMs) => {
    const { state, get } = setUp(lifeMs);
    expect(await get()).toBe("token-1");
    state.nowMs = renewAtMs - 1;
    expect(await get()).toBe("token-1");
    state.nowMs = renewAtMs;
    expect(await get()).toBe("token-2");
  });

  test("are asked for once by a thousand who wait, also after a refusal", async () => {
    const { state, get } = setUp(60 * minute);
    expect(new Set(await Promise.all(Array.from({ length: 1000 }, () => get())))).toEqual(
      new Set(["token-1"]),
    );
    const again = await Promise.all(Array.from({ length: 1000 }, () => get(true)));
    expect(new Set(again)).toEqual(new Set(["token-2"]));
    expect(state.asked).toBe(2);
  });

  test("serve until they truly end while the issuer fails, which is asked every ten seconds", async () => {
    const { state, get } = setUp(60 * minute);
    await get();
    state.fails = true;
    for (state.nowMs = 55 * minute; state.nowMs < 60 * minute; state.nowMs += 1_000) {
      expect(await get()).toBe("token-1");
    }
    expect(state.asked).toBe(1 + 5 * 6);
    await expect(get()).rejects.toThrow("failure");
    state.fails = false;
    state.nowMs += 1_000;
    expect(await get()).toMatch(/^token-/);
  });

  test("do not keep anybody waiting for an issuer that hangs while the old one is good", async () => {
    const { state, get } = setUp(60 * minute, 5);
    await get();
    const gate = Promise.withResolvers<void>();
    state.gate = gate.promise;
    state.nowMs = 56 * minute;
    expect(await Promise.all([get(), get()])).toEqual(["token-1", "token-1"]);
    gate.resolve();
    state.gate = undefined;
    const fresh = await get();
    expect([fresh, state.asked]).toEqual(["token-2", 2]);
  });

  test("are not asked for again at once after a failure, and then they are", async () => {
    const { state, get } = setUp(60 * minute);
    state.fails = true;
    for (let round = 0; round < 100; round += 1)
      await expect(get(round % 2 === 1)).rejects.toThrow("failure 1");
    state.nowMs += 1_000;
    await expect(get()).rejects.toThrow("failure 2");
  });
});
