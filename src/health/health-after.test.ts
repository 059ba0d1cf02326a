import { describe, expect, test } from "bun:test";
import type { CheckOutcome } from "./check.ts";
import type { SecretHealth } from "./health.ts";
import { type CheckedSecret, healthAfter } from "./health-after.ts";

const at = new Date("2026-03-01T12:00:00Z");
const later = new Date("2026-03-01T18:00:00Z");
const rules = { intervalMs: 6 * 3_600_000, locksNames: false, random: () => 0.5 };
const secret: CheckedSecret = {
  secretId: "s",
  workspaceId: "w",
  secretName: "acme",
  registry: "ghcr.io",
  version: 1,
  declaredExpiry: undefined,
};
const works: CheckOutcome = { verdict: "ok", rights: "pull" };
const refused: CheckOutcome = {
  verdict: "refused",
  rights: "unknown",
  code: "unauthorized",
  reason: "ghcr.io refuses the credential",
  next: "Check it.",
};
const away: CheckOutcome = {
  verdict: "unknown",
  rights: "unknown",
  code: "unreachable",
  reason: "no answer",
};
const inDays = (days: number): Date => new Date(at.getTime() + days * 86_400_000);

function after(former: SecretHealth | undefined, outcome: CheckOutcome, change: Partial<CheckedSecret> = {}) {
  return healthAfter(former, { ...secret, ...change }, outcome, former === undefined ? at : later, rules);
}

describe("after a check", () => {
  test("what works is ok since the first time, and seen to work at the last", () => {
    const again = after(after(undefined, works), works);
    expect(again).toMatchObject({ state: "ok", since: at, lastOkAt: later, failures: 0, rights: "pull" });
    expect([again.code, again.reason, again.next]).toEqual([undefined, undefined, undefined]);
  });

  test("what is refused is failing in the registry's words, and remembers when it worked", () => {
    const failing = after(after(undefined, works), refused);
    expect(failing).toMatchObject({ state: "failing", code: "unauthorized", since: later, lastOkAt: at });
    expect(failing.rights).toBe("pull");
    expect(after(failing, refused).failures).toBe(2);
  });

  test("a registry that is away makes it unknown, keeps the end that is known, and hides no refusal", () => {
    const ends = inDays(100);
    const unknown = after(after(undefined, { ...works, expiresAt: ends }), away);
    expect(unknown).toMatchObject({ state: "unknown", code: "unreachable", expiresAt: ends, failures: 1 });
    const failing = after(after(undefined, refused), away);
    expect(failing).toMatchObject({ state: "failing", code: "unauthorized", failures: 1, since: at });
  });

  test("another version begins anew, also after three refusals", () => {
    const hub = { ...rules, locksNames: true };
    let health: SecretHealth | undefined;
    for (let count = 0; count < 3; count += 1) health = healthAfter(health, secret, refused, at, hub);
    expect(health?.nextCheckAt).toBeUndefined();
    const next = healthAfter(health, { ...secret, version: 2 }, refused, later, hub);
    expect(next).toMatchObject({ state: "failing", failures: 1, version: 2, since: at });
    expect(next.nextCheckAt).toBeDate();
    expect(healthAfter(health, { ...secret, version: 2 }, away, later, hub).state).toBe("unknown");
  });
});

describe("its end", () => {
  test("makes it expiring fourteen days before, and not a moment earlier", () => {
    expect(after(undefined, { ...works, expiresAt: new Date(inDays(14).getTime() + 1) }).state).toBe("ok");
    const expiring = after(undefined, { ...works, expiresAt: inDays(14) });
    expect(expiring.state).toBe("expiring");
    expect(expiring.reason).toBe("it ends on 2026-03-15");
    expect(expiring.next).toContain("secret update");
  });

  test("is the earlier of its own and its owner's word", () => {
    const own = { ...works, expiresAt: inDays(40) };
    const declared = after(undefined, own, { declaredExpiry: inDays(3) });
    expect(declared).toMatchObject({ state: "expiring", expiresAt: inDays(3) });
    expect(declared.reason).toContain("as its owner said");
    expect(after(undefined, own, { declaredExpiry: inDays(90) }).expiresAt).toEqual(inDays(40));
  });

  test("is believed no more than the registry: what should have ended and works is expiring", () => {
    const past = after(undefined, works, { declaredExpiry: inDays(-2) });
    expect(past.state).toBe("expiring");
    expect(past.reason).toContain("still works");
  });

  test("that its owner takes back is none any more", () => {
    const before = after(undefined, works, { declaredExpiry: inDays(3) });
    expect(after(before, works)).toMatchObject({ state: "ok", expiresAt: undefined });
  });
});
