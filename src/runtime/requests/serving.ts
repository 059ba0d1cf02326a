import { connect } from "node:net";
import type { ContainerServing } from "../../container/options.ts";
import { sleep } from "../../std/wait.ts";
import type { Forwarder } from "./forwarder.ts";

const firstPauseMs = 2;
const longestPauseMs = 50;
/** A host that drops packets answers nothing at all. */
const connectTimeoutMs = 1_000;

/**
 * Tries to connect until a program listens. True: it does; false: it did not in time.
 * @throws the signal's reason
 */
export async function untilListening(
  at: { readonly host: string; readonly port: number },
  timeoutMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const until = performance.now() + timeoutMs;
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(longestPauseMs, pauseMs * 2)) {
    signal.throwIfAborted();
    const leftMs = until - performance.now();
    if (leftMs <= 0) return false;
    if (await accepts(at, Math.min(leftMs, connectTimeoutMs), signal)) return true;
    await sleep(Math.min(pauseMs, Math.max(1, until - performance.now())), signal);
  }
}

function accepts(
  at: { readonly host: string; readonly port: number },
  timeoutMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(at);
    const end = (accepted: boolean): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", leave);
      socket.destroy();
      resolve(accepted);
    };
    const leave = (): void => end(false);
    const timer = setTimeout(leave, timeoutMs);
    signal.addEventListener("abort", leave, { once: true });
    socket.once("connect", () => end(true));
    socket.on("error", leave);
  });
}

/** A container that is to serve, as far as it can be known from outside. */
interface Program {
  readonly id: string;
  readonly address?: string | undefined;
  readonly exited: Promise<unknown>;
}

/**
 * Waits for a container's program to listen, and gives it requests from then until it ends.
 *
 * @returns undefined: it listens; else a sentence that says why not
 */
export async function bringUp(
  forwarder: Forwarder,
  program: Program,
  { port, startupTimeoutMs, concurrency }: ContainerServing,
): Promise<string | undefined> {
  const at = { host: program.address ?? "127.0.0.1", port };
  const ended = new AbortController();
  void program.exited.then(() => {
    ended.abort();
    forwarder.remove(program.id);
  });
  const listens = await untilListening(at, startupTimeoutMs, ended.signal).catch(() => undefined);
  if (listens === undefined || ended.signal.aborted) return `it ended before its port ${port} answered`;
  if (!listens)
    return `its port ${port} did not answer within ${startupTimeoutMs / 1000} s; does the program listen on that port, and on all addresses (0.0.0.0) rather than 127.0.0.1?`;
  forwarder.add(program.id, { ...at, concurrency });
  return undefined;
}
