import { CodedError } from "./error.ts";

export type SpawnErrorCode = "not_found" | "failed" | "timeout" | "too_large";

/** A helper program that could not be started, failed, or ran past its time. */
export class SpawnError extends CodedError<SpawnErrorCode> {
  override readonly name = "SpawnError";
}

/** The environment that our children get: nothing of the caller's but where programs and the locale are. */
export const cleanEnvironment: Readonly<Record<string, string>> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  LANG: "C.UTF-8",
};

export interface RunOptions {
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly stdin?: Uint8Array | string;
}

export interface RunResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a helper program to its end with a clean environment and returns what it printed, whatever its exit code. */
export async function tryRun(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const program = argv[0] ?? "";
  let child: Bun.Subprocess<"pipe" | "ignore", "pipe", "pipe">;
  try {
    child = Bun.spawn([...argv], {
      env: { ...cleanEnvironment, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      stdin: options.stdin === undefined ? "ignore" : "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
  } catch (cause) {
    throw new SpawnError("not_found", `${program}: the program could not be started`, {
      cause,
      next: `Install ${program}, or see \`oci-node doctor\`.`,
    });
  }
  if (options.stdin !== undefined && child.stdin !== undefined && typeof child.stdin !== "number") {
    child.stdin?.write(options.stdin);
    child.stdin?.end();
  }
  let timedOut = false;
  const timer =
    options.timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          child.kill("SIGKILL");
        }, options.timeoutMs);
  try {
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    options.signal?.throwIfAborted();
    if (timedOut) throw new SpawnError("timeout", `${program} did not end within ${options.timeoutMs} ms`);
    return { exitCode, stdout, stderr };
  } finally {
    clearTimeout(timer);
  }
}

/** Like {@link tryRun}, but an exit code other than 0 is a {@link SpawnError} with the end of standard error in it. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const result = await tryRun(argv, options);
  if (result.exitCode !== 0) {
    const tail = (result.stderr || result.stdout).trim().slice(-2000);
    throw new SpawnError("failed", `${argv.slice(0, 2).join(" ")} exited with ${result.exitCode}: ${tail}`);
  }
  return result;
}
