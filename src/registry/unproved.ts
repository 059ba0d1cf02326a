import { CredentialError } from "../credential/error.ts";
import { formatReference, type Reference } from "../reference/reference.ts";
import { formatDuration } from "../std/duration.ts";
import { isPassing, RegistryError } from "./error.ts";

/** What there was before: how long ago access was proved, and for how long that counted. */
export interface LastProof {
  readonly agoMs: number;
  readonly lifeMs: number;
}

/**
 * That nobody could be asked whether a workspace may have an image, in place of the error that asking ended with: which
 * image, since when, and what to do. An answer (a refusal, a missing image) is left as it is.
 */
export function unproved(thrown: unknown, reference: Reference, last?: LastProof): unknown {
  if (!isAway(thrown)) return thrown;
  const before = last === undefined ? "" : `; ${tell(last)}`;
  const message = `access to ${formatReference(reference)} cannot be proved now: ${thrown.message}${before}`;
  const next = `${thrown.next ?? "Try again."} A workspace's \`grant_life\` says how long a proof counts while nobody answers.`;
  if (thrown instanceof CredentialError) return new CredentialError(thrown.code, message, { next });
  return new RegistryError(thrown.code, message, thrown, { next, retryAfterMs: thrown.retryAfterMs });
}

function tell({ agoMs, lifeMs }: LastProof): string {
  if (lifeMs === 0) return "each start is to prove it";
  return `the last proof is ${formatDuration(agoMs)} old and counts for ${formatDuration(lifeMs)}`;
}

/** Whoever should answer cannot be reached; refusing is something else. */
export function isAway(error: unknown): error is RegistryError | CredentialError {
  return isPassing(error) || (error instanceof CredentialError && error.code === "provider_unreachable");
}
