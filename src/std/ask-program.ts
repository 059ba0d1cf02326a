import { cleanEnvironment, SpawnError } from "./spawn.ts";

export interface AskOptions {
  /** Over PATH and the locale; nothing else of this process's own environment goes along. */
  readonly env?: Readonly<Record<string, string>>;
  /** What the program reads on its standard input. */
  readonly stdin: string;
  readonly timeoutMs: number;
  readonly stdoutBytesMax: number;
  readonly signal?: AbortSignal | undefined;
}

export interface ProgramAnswer {
  /** Above 128: the signal that ended it. */
  readonly exitCode: number;
  /** May hold a secret. */
  readonly stdout: string;
}

/**
 * Asks a program that hands out credentials: a line or a document on its standard input, the answer on its standard
 * output. It has a process group of its own, which is killed as a whole when the time is over, the answer is too large or
 * the signal aborts. Standard error is thrown away unread: such programs write secrets there.
 *
 * @throws SpawnError `not_found`, `timeout`, `too_large`, or the signal's reason
 */
export async function askProgram(argv: readonly string[], options: AskOptions): Promise<ProgramAnswer> {
  options.signal?.throwIfAborted();
  const child = start(argv, options);
  const reader = child.stdout.getReader();
  const given = Promise.withResolvers<never>();
  given.promise.catch(() => undefined);
  const seconds = options.timeoutMs / 1000;
  const late = () => given.reject(new SpawnError("timeout", `${argv[0]} did not answer within ${seconds} s`));
  const timer = setTimeout(late, options.timeoutMs);
  const leave = () => given.reject(options.signal?.reason);
  options.signal?.addEventListener("abort", leave, { once: true });
  try {
    const stdout = await Promise.race([readAll(reader, options.stdoutBytesMax), given.promise]);
    if (stdout === undefined) throw new SpawnError("too_large", `${argv[0]} answers with too much`);
    return { exitCode: await Promise.race([child.exited, given.promise]), stdout };
  } catch (error) {
    killGroup(child.pid);
    reader.cancel().catch(() => undefined);
    throw error;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", leave);
  }
}

function start(argv: readonly string[], { env, stdin }: AskOptions): Bun.Subprocess<Uint8Array, "pipe"> {
  try {
    return Bun.spawn([...argv], {
      env: { ...cleanEnvironment, ...env },
      // A session of its own, and with it a process group.
      detached: true,
      stdin: new TextEncoder().encode(stdin),
      stdout: "pipe",
      stderr: "ignore",
    });
  } catch (cause) {
    throw new SpawnError("not_found", `${argv[0]}: the program could not be started`, { cause });
  }
}

/** `undefined`: there is more than that. */
async function readAll(
  reader: { read(): Promise<{ done: boolean; value?: Uint8Array | undefined }> },
  bytesMax: number,
): Promise<string | undefined> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done || value === undefined) return Buffer.concat(chunks).toString("utf8");
    bytes += value.byteLength;
    if (bytes > bytesMax) return undefined;
    chunks.push(value);
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It is gone.
  }
}
