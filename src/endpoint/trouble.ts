import type { ContainerView, DeploymentView } from "./view.ts";

/** Containers that do not come up, or do not stay. */
export interface Trouble {
  /** Until when no other one is started, by the database's clock. */
  readonly until: Date;
  /** Why the latest did not come up; undefined where it did, and ended soon after. */
  readonly problem: string | undefined;
}

/** One that took requests for so long was well. */
const wellMs = 10_000;
const pauseMsMost = 60_000;
/** A request that ends the program must not keep others waiting for long. */
const crashPauseMsMost = 2_000;

/**
 * What the latest containers of a deployment say of the next one: after n in a row that ended before they answered, it waits
 * 2^(n-1) seconds, at most a minute; after those that answered and ended within seconds, less. Undefined: nothing against it.
 * Those that were told to end, or were lost with their worker, say nothing.
 */
export function troubleOf({ living, ended }: Pick<DeploymentView, "living" | "ended">): Trouble | undefined {
  const latestFirst = [...living, ...ended].sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime());
  const failed: ContainerView[] = [];
  for (const container of latestFirst) {
    if (container.lost || container.drainingAt !== undefined) continue;
    if (container.finishedAt === undefined) {
      if (container.readyAt !== undefined) break;
      continue;
    }
    if (servedMs(container) >= wellMs) break;
    failed.push(container);
  }
  const [latest] = failed;
  if (latest === undefined) return undefined;
  const crashed = latest.readyAt !== undefined;
  const alike = failed.filter(({ readyAt }) => (readyAt !== undefined) === crashed).length;
  const pauseMs = crashed ? crashPauseMs(alike) : Math.min(pauseMsMost, 1_000 * 2 ** (alike - 1));
  return {
    until: new Date(latest.updatedAt.getTime() + pauseMs),
    problem: crashed ? undefined : endOf(latest),
  };
}

/** How a container ended, as a sentence without its beginning's capital. */
export function endOf({ id, reason, exitCode, signal, oomKilled, readyAt }: ContainerView): string {
  const how = oomKilled
    ? "ran out of memory"
    : signal !== undefined
      ? `was ended by ${signal}`
      : exitCode !== undefined
        ? `ended with exit code ${exitCode}`
        : "failed";
  if (reason !== undefined) return `container ${id} ${how}: ${reason}`;
  return `container ${id} ${how}${readyAt === undefined ? " before it answered" : ""}`;
}

function servedMs({ readyAt, finishedAt }: ContainerView): number {
  if (readyAt === undefined || finishedAt === undefined) return 0;
  return finishedAt.getTime() - readyAt.getTime();
}

function crashPauseMs(inARow: number): number {
  return inARow === 1 ? 0 : Math.min(crashPauseMsMost, 250 * 2 ** (inARow - 2));
}
