/**
 * The way from C threads to JavaScript: a thread-safe callback as doorbell, a queue in C behind it, and the table of
 * jobs that JavaScript waits for. At most {@link eventsPerTurn} events per turn of the event loop: draining until the
 * queue is empty would starve timers and sockets under load.
 */
import { JSCallback } from "bun:ffi";
import { NativeError } from "./error.ts";
import { loadShim } from "./shim.ts";

const { symbols } = loadShim({
  oci_engine_start: { args: ["ptr"], returns: "i32" },
  oci_engine_quiet: { args: [], returns: "void" },
  oci_engine_drain: { args: ["buffer", "u32"], returns: "u32" },
  oci_errno_name: { args: ["i32"], returns: "cstring" },
});

const eventsPerTurn = 64;
const wordsPerEvent = 4;
const missEvent = 1;

interface Job {
  readonly resolve: (result: number) => void;
  /** Buffers that C writes to or reads from until the job is done. */
  readonly keep: readonly unknown[];
}

const jobs = new Map<number, Job>();
const events = new Uint32Array(eventsPerTurn * wordsPerEvent);
let nextJob = 1;
let callback: JSCallback | undefined;
let missHandler: ((view: number, span: number, damaged: number) => void) | undefined;

/** Everything that must not outlive the process's natural end: jobs under way and mounts. */
let holds = 0;
let holdTimer: ReturnType<typeof setInterval> | undefined;

/** Keeps the process alive until the returned function is called (once or more often). */
export function holdProcess(): () => void {
  if (holds++ === 0) holdTimer = setInterval(() => {}, 2 ** 30);
  let held = true;
  return () => {
    if (!held) return;
    held = false;
    if (--holds === 0) clearInterval(holdTimer);
  };
}

function drain(): void {
  const count = symbols.oci_engine_drain(events, eventsPerTurn);
  for (let i = 0; i < count; i++) {
    const at = i * wordsPerEvent;
    const id = events[at + 1]!;
    if (events[at] === missEvent) {
      missHandler?.(id, events[at + 2]!, events[at + 3]!);
    } else {
      const job = jobs.get(id);
      jobs.delete(id);
      job?.resolve(events[at + 3]! | 0);
    }
  }
  if (count === eventsPerTurn) setImmediate(drain);
}

/** Starts the doorbell; needed before the first job or mount. Idempotent. */
export function startDoorbell(): void {
  if (callback !== undefined) return;
  callback = new JSCallback(drain, { args: [], returns: "void", threadsafe: true });
  checked(symbols.oci_engine_start(callback.ptr), "the native threads could not be started");
  process.on("exit", () => symbols.oci_engine_quiet());
}

/** Where misses go: view number, span, how many spans of the blob were found damaged so far. One receiver per process (the engine); it must not throw. */
export function receiveMisses(handler: (view: number, span: number, damaged: number) => void): void {
  missHandler = handler;
}

/** The name (`ENOENT`) of an errno, either sign. */
export function errnoName(errno: number): string {
  return String(symbols.oci_errno_name(Math.abs(errno)));
}

/**
 * Starts a job in C and waits for its end. `start` gets the job's number and returns 0, or -errno when it did not
 * start. Resolves to what C reported: 0 or more, or -errno.
 */
export function runJob(start: (job: number) => number, ...keep: unknown[]): Promise<number> {
  startDoorbell();
  const id = nextJob;
  nextJob = nextJob === 0xffff_ffff ? 1 : nextJob + 1;
  const release = holdProcess();
  return new Promise<number>((resolve) => {
    jobs.set(id, { resolve, keep });
    const result = start(id);
    if (result >= 0) return;
    jobs.delete(id);
    resolve(result);
  }).finally(release);
}

/** Throws the {@link NativeError} of a negative result; returns any other. */
export function checked(result: number, what: string, next?: string): number {
  if (result >= 0) return result;
  const code = errnoName(result);
  throw new NativeError(code, `${what}: ${code}`, { next });
}
