/** Process calls: locks, waiting for somebody else's child. */
import { checked, runJob } from "./doorbell.ts";
import { loadShim } from "./shim.ts";

const { symbols } = loadShim({
  oci_flock: { args: ["i32", "i32"], returns: "i32" },
  oci_wait_exit: { args: ["i32", "u32"], returns: "i32" },
  oci_pidfd_open: { args: ["i32"], returns: "i32" },
  oci_pidfd_signal: { args: ["i32", "i32"], returns: "i32" },
  oci_close: { args: ["i32"], returns: "i32" },
  oci_prefer_thread: { args: ["i32"], returns: "i32" },
});

/** <sys/file.h>. */
const lock = { shared: 1, exclusive: 2, nonBlocking: 4 } as const;

/** flock(2) without waiting; throws `EAGAIN` when another open file description holds it. Closing the descriptor unlocks. */
export function flock(fd: number, mode: "shared" | "exclusive"): void {
  checked(symbols.oci_flock(fd, lock[mode] | lock.nonBlocking), `descriptor ${fd} could not be locked`);
}

/**
 * Resolves when the process has ended, whoever its parent is (pidfd_open(2)); at once when there is none. The caller
 * makes sure that the number still means the process that it knows, for instance by its start time.
 */
export async function waitForExit(pid: number): Promise<void> {
  checked(await runJob((job) => symbols.oci_wait_exit(pid, job)), `process ${pid} could not be waited for`);
}

const sigkill = 9;

/** A process that cannot be mistaken for a later one with its number. */
export class ProcessHandle {
  readonly pid: number;
  #fd: number;

  private constructor(pid: number, fd: number) {
    this.pid = pid;
    this.#fd = fd;
  }

  /** Throws `ESRCH` when there is no such process. */
  static open(pid: number): ProcessHandle {
    return new ProcessHandle(pid, checked(symbols.oci_pidfd_open(pid), `process ${pid}`));
  }

  /** Sends a signal by its number; throws `ESRCH` once the process has ended. */
  kill(signal: number): void {
    checked(symbols.oci_pidfd_signal(this.#fd, signal), `process ${this.pid} could not be signalled`);
  }

  /** SIGKILL for all of its process group, if it leads one. Once its number may be another's, nothing happens. */
  killGroup(): void {
    const probe = 0;
    if (symbols.oci_pidfd_signal(this.#fd, probe) < 0) return;
    try {
      process.kill(-this.pid, "SIGKILL");
    } catch {
      // It leads none.
    }
    symbols.oci_pidfd_signal(this.#fd, sigkill);
  }

  close(): void {
    if (this.#fd >= 0) symbols.oci_close(this.#fd);
    this.#fd = -1;
  }
}

/** Better than the inflate threads' and the containers', worse than what keeps a machine alive. */
const servingNiceness = -10;

/**
 * Lets this thread, which answers every miss and every call, have a processor before those that inflate and those that
 * read: it needs one for a millisecond at a time, and everybody waits for it. What is started from it begins without that
 * preference. Without the right to it (CAP_SYS_NICE) nothing happens.
 */
export function preferThisThread(): void {
  symbols.oci_prefer_thread(servingNiceness);
}
