import { isIP } from "node:net";

/** How often a registry may still be asked for an image's manifest, as its last answer said. */
export interface PullLimit {
  readonly registry: string;
  readonly limit: number;
  readonly remaining: number;
  /** The window that they count in; 0: not said. */
  readonly windowSeconds: number;
  /** Whether the account's pulls are counted, or all that come from this machine's address. */
  readonly countedBy: "account" | "address" | undefined;
}

const countPattern = /^(\d{1,9})(?:\s*;\s*w=(\d{1,9}))?$/;
/** Below a tenth of the limit pulls are told to be low. */
const lowShare = 0.1;

/**
 * What `ratelimit-limit` and `ratelimit-remaining` say (`100;w=21600`: so many in 6 h), and whom `docker-ratelimit-source`
 * (an address, or an account's id) counts (Docker Hub, "Usage and limits"). `undefined` when they say nothing that makes
 * sense.
 */
export function parsePullLimit(headers: Headers, registry: string): PullLimit | undefined {
  const limit = countPattern.exec(headers.get("ratelimit-limit")?.trim() ?? "");
  const remaining = countPattern.exec(headers.get("ratelimit-remaining")?.trim() ?? "");
  if (limit === null || remaining === null) return undefined;
  const source = headers.get("docker-ratelimit-source")?.trim();
  return {
    registry,
    limit: Number(limit[1]),
    remaining: Number(remaining[1]),
    windowSeconds: Number(limit[2] ?? remaining[2] ?? 0),
    countedBy: source ? (isIP(source) === 0 ? "account" : "address") : undefined,
  };
}

export function isLow({ limit, remaining }: PullLimit): boolean {
  return remaining <= limit * lowShare;
}

/** `100 pulls in 6 h, counted by this machine's address`. */
export function describeLimit({ limit, windowSeconds, countedBy }: PullLimit): string {
  const window = windowSeconds > 0 ? ` in ${describeWindow(windowSeconds)}` : "";
  if (countedBy === undefined) return `${limit} pulls${window}`;
  return `${limit} pulls${window}, counted by ${countedBy === "account" ? "the account" : "this machine's address"}`;
}

/** `docker.io: 97 of 100 pulls left in 6 h`. */
export function describeLeft(left: PullLimit): string {
  const { registry, limit, remaining, windowSeconds, countedBy } = left;
  const window = windowSeconds > 0 ? ` in ${describeWindow(windowSeconds)}` : "";
  const text = `${registry}: ${remaining} of ${limit} pulls left${window}`;
  return isLow(left) && countedBy === "address"
    ? `${text}; a credential has a limit of its own (--creds)`
    : text;
}

/** `6 h`, `90 min`, `45 s`. */
function describeWindow(seconds: number): string {
  if (seconds % 3600 === 0) return `${seconds / 3600} h`;
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
}
