/** Time, as leases see it. Tests make it virtual. */
export interface LeaseClock {
  /** Milliseconds since whenever; never goes back. */
  readonly now: () => number;
  /** Calls after so many milliseconds, unless what it gives is called before. */
  readonly later: (timeMs: number, call: () => void) => () => void;
  /** From 0 to 1. */
  readonly random: () => number;
}

/** A timer of Node's holds 2³¹ ms; whoever waits longer looks again then. */
const longestTimerMs = 24 * 3600_000;

/** Monotonic: nobody's wall clock, set right in the middle, ends a lease. Keeps no process alive. */
export const systemLeaseClock: LeaseClock = {
  now: () => performance.now(),
  later: (timeMs, call) => {
    const timer = setTimeout(call, Math.min(timeMs, longestTimerMs));
    timer.unref();
    return () => clearTimeout(timer);
  },
  random: Math.random,
};
