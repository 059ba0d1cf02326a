import type { CredentialRights } from "../registry/rights.ts";

export const healthStates = ["ok", "expiring", "failing", "unknown"] as const;

/**
 * How a credential fares. `ok`: it works. `expiring`: it works, and ends within {@link expiringWithinMs}. `failing`: its
 * registry or issuer refuses it. `unknown`: it was not tried yet, or nobody could be asked.
 */
export type HealthState = (typeof healthStates)[number];

export const expiringWithinMs = 14 * 24 * 3_600_000;

/** How a secret's current version fares at its registry. Never holds a value. */
export interface SecretHealth {
  readonly secretId: string;
  readonly workspaceId: string;
  readonly secretName: string;
  /** Host of the registry. */
  readonly registry: string;
  /** The version that this is about; counts from 1. */
  readonly version: number;
  readonly state: HealthState;
  /** Of the registry's, credential's or secret's error (`unauthorized`, `expired`, `unreachable`, …). */
  readonly code: string | undefined;
  /** What happened, in one sentence. */
  readonly reason: string | undefined;
  /** What to do about it. */
  readonly next: string | undefined;
  /** When the state began. */
  readonly since: Date;
  readonly checkedAt: Date | undefined;
  readonly lastOkAt: Date | undefined;
  /** `undefined`: not by itself any more, as its account would be locked; after an update, or by hand. */
  readonly nextCheckAt: Date | undefined;
  /** Checks in a row that ended as the state says, where that is `failing` or `unknown`. */
  readonly failures: number;
  readonly rights: CredentialRights;
  /** When the credential ends, as far as itself or its owner says so. */
  readonly expiresAt: Date | undefined;
}
