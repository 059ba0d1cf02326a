import type { CheckOutcome } from "./check.ts";
import { expiringWithinMs, type HealthState, type SecretHealth } from "./health.ts";
import { nextCheckAt, type PlanRules } from "./plan.ts";
import { sinceOf } from "./transition.ts";

/** What was checked. */
export interface CheckedSecret {
  readonly secretId: string;
  readonly workspaceId: string;
  readonly secretName: string;
  readonly registry: string;
  readonly version: number;
  /** When it ends, as its owner said. */
  readonly declaredExpiry: Date | undefined;
}

/**
 * How a secret fares after a check.
 *
 * A refusal that is known is not forgotten because nobody could be asked since: of the same version it stays `failing`
 * until it is seen to work. Nor does it become one by asking in vain, however often.
 *
 * @param former what was known before, of whatever version
 * @param at when the check began
 */
export function healthAfter(
  former: SecretHealth | undefined,
  secret: CheckedSecret,
  outcome: CheckOutcome,
  at: Date,
  rules: PlanRules,
): SecretHealth {
  const { declaredExpiry, ...identity } = secret;
  const same = former?.version === secret.version ? former : undefined;
  const known = { ...identity, checkedAt: at, lastOkAt: same?.lastOkAt };
  const ends = earliest(
    outcome.expiresAt ?? (outcome.verdict === "ok" ? undefined : same?.expiresAt),
    declaredExpiry,
  );
  if (outcome.verdict === "unknown" && same?.state === "failing") {
    const { failures } = same;
    const { retryAfterMs } = outcome;
    const checked = { state: "failing", failures, expiresAt: ends, retryAfterMs } as const;
    return {
      ...same,
      ...identity,
      checkedAt: at,
      expiresAt: ends,
      nextCheckAt: nextCheckAt(checked, at, rules),
    };
  }
  const state = stateOf(outcome, ends, at);
  const failures = isWell(state) ? 0 : 1 + (same?.state === state ? same.failures : 0);
  return {
    ...known,
    state,
    ...wordsOf(outcome, state, ends, declaredExpiry, at),
    since: sinceOf(former, state, at),
    lastOkAt: isWell(state) ? at : known.lastOkAt,
    failures,
    rights: outcome.rights === "unknown" ? (same?.rights ?? "unknown") : outcome.rights,
    expiresAt: ends,
    nextCheckAt: nextCheckAt(
      { state, failures, expiresAt: ends, retryAfterMs: outcome.retryAfterMs },
      at,
      rules,
    ),
  };
}

/** How a secret fares of which a version was kept without a check. */
export function unchecked(
  former: SecretHealth | undefined,
  secret: CheckedSecret,
  at: Date,
  dueAt: Date,
): SecretHealth {
  const { declaredExpiry, ...identity } = secret;
  return {
    ...identity,
    state: "unknown",
    code: "unchecked",
    reason: "it was kept without a check",
    next: `Check it with \`oci-node secret health ${secret.secretName} --check\`.`,
    since: sinceOf(former, "unknown", at),
    checkedAt: undefined,
    lastOkAt: undefined,
    nextCheckAt: dueAt,
    failures: 0,
    rights: "unknown",
    expiresAt: declaredExpiry,
  };
}

function stateOf({ verdict }: CheckOutcome, ends: Date | undefined, at: Date): HealthState {
  if (verdict === "refused") return "failing";
  if (verdict === "unknown") return "unknown";
  return ends !== undefined && ends.getTime() - at.getTime() <= expiringWithinMs ? "expiring" : "ok";
}

function isWell(state: HealthState): boolean {
  return state === "ok" || state === "expiring";
}

function wordsOf(
  { code, reason, next }: CheckOutcome,
  state: HealthState,
  ends: Date | undefined,
  declared: Date | undefined,
  at: Date,
): Pick<SecretHealth, "code" | "reason" | "next"> {
  if (state !== "expiring" || ends === undefined || reason !== undefined) return { code, reason, next };
  const day = ends.toISOString().slice(0, 10);
  const who = ends.getTime() === declared?.getTime() ? ", as its owner said" : "";
  return {
    code: undefined,
    reason: ends > at ? `it ends on ${day}${who}` : `it should have ended on ${day}${who}, and still works`,
    next: "Make a new one at the registry and give that with `oci-node secret update`.",
  };
}

function earliest(one: Date | undefined, other: Date | undefined): Date | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return one < other ? one : other;
}
