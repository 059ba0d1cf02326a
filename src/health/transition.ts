import type { HealthState, SecretHealth } from "./health.ts";

/** What was known of the secret before. */
export type FormerHealth = Pick<SecretHealth, "state" | "version" | "since" | "code" | "expiresAt">;

/** A secret whose state, version or known end is another one than before. */
export interface HealthTransition {
  /** `undefined`: the secret is new. */
  readonly from: FormerHealth | undefined;
  readonly to: SecretHealth;
  /** When the check was made that found it. */
  readonly at: Date;
}

/**
 * Told of each transition once it is written down, by the process that wrote it (a gateway or a scheduler): a process that
 * dies in between tells nobody, so whoever must not miss one looks into the table as well. Must not take long, and
 * must not throw: what it cannot do is its own to log.
 */
export type OnTransition = (transition: HealthTransition) => Promise<void>;

/** Whether others want to know. */
export function isTransition(from: FormerHealth | undefined, to: SecretHealth): boolean {
  if (from === undefined) return true;
  return from.state !== to.state || from.version !== to.version || !sameTime(from.expiresAt, to.expiresAt);
}

/** When the state began: a state that a new version is in, too, goes on. */
export function sinceOf(from: FormerHealth | undefined, state: HealthState, at: Date): Date {
  return from?.state === state ? from.since : at;
}

function sameTime(one: Date | undefined, other: Date | undefined): boolean {
  return one?.getTime() === other?.getTime();
}
