import type { TerminalSize } from "../gen/oci_node/v1/container_service_pb.ts";
import { cleanEnvironment } from "../std/spawn.ts";
import { CliError } from "./context.ts";
import { note } from "./output.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** What a person, or whatever feeds the command, sends to a program elsewhere. */
export type SessionInput =
  | { readonly case: "stdin"; readonly value: Bytes }
  | { readonly case: "stdinClosed"; readonly value: true }
  | { readonly case: "resize"; readonly value: { readonly rows: number; readonly columns: number } }
  | { readonly case: "signal"; readonly value: string };

export interface SessionOptions {
  /** Standard input goes there; otherwise it is closed at once. */
  readonly stdin: boolean;
  /** The terminal here leads to one there: what is typed goes as it is. */
  readonly terminal: boolean;
  /** The program gets the signals that this command gets. */
  readonly signals: boolean;
}

const forwarded = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
const pieceBytes = 64 * 1024;
/** So many interrupts that the program made nothing of, and the person is let go. */
const interruptsMax = 3;
/** 128 and SIGINT, as shells say it. */
const interruptedExitCode = 130;

/** This end of a program that runs elsewhere: standard input, output, error, and the terminal if there is one. */
export class Session {
  readonly #options: SessionOptions;
  readonly #urgent: SessionInput[] = [];
  readonly #undo: (() => void)[] = [];
  #interrupts = 0;
  #over = false;
  #wake: () => void = () => undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    if (options.terminal) this.#openTerminal();
    else if (options.signals) this.#forwardSignals();
  }

  /** @throws CliError `usage` for a terminal that is none */
  static assertTerminal({ stdin, terminal }: Pick<SessionOptions, "stdin" | "terminal">): void {
    if (terminal && stdin && process.stdin.isTTY !== true)
      throw new CliError("usage", "standard input is no terminal", { next: "Leave -t away." });
  }

  /** Of the terminal here. */
  static size(): Pick<TerminalSize, "rows" | "columns"> {
    return { rows: process.stdout.rows ?? 24, columns: process.stdout.columns ?? 80 };
  }

  /** To be read by one. What is typed is read only when it can be sent; ends after {@link close}. */
  async *input(): AsyncGenerator<SessionInput, void, undefined> {
    const stdin = this.#options.stdin ? process.stdin[Symbol.asyncIterator]() : undefined;
    if (stdin === undefined && !this.#options.terminal) yield { case: "stdinClosed", value: true };
    let reading = stdin?.next().catch(() => ({ done: true as const, value: undefined }));
    while (!this.#over) {
      for (let next = this.#urgent.shift(); next !== undefined; next = this.#urgent.shift()) yield next;
      const woken = new Promise<undefined>((resolve) => {
        this.#wake = () => resolve(undefined);
      });
      if (this.#over || this.#urgent.length > 0) continue;
      const read = await (reading === undefined ? woken : Promise.race([reading, woken]));
      if (read === undefined) continue;
      if (read.done === true) {
        reading = undefined;
        yield { case: "stdinClosed", value: true };
        continue;
      }
      const bytes = new Uint8Array(read.value as Buffer<ArrayBuffer>);
      for (let at = 0; at < bytes.length; at += pieceBytes)
        yield { case: "stdin", value: bytes.subarray(at, at + pieceBytes) };
      reading = stdin?.next();
    }
  }

  /** Waits until it is taken. */
  async write(stream: "stdout" | "stderr", data: Uint8Array): Promise<void> {
    const out = process[stream];
    if (!out.write(data)) await new Promise((resolve) => out.once("drain", resolve));
  }

  /** The terminal is as it was; nothing more is read. Safe to repeat. */
  close(): void {
    if (this.#over) return;
    this.#over = true;
    for (const undo of this.#undo) undo();
    // What is not read may be the next command's; but a read that is under way would keep this one alive.
    if (this.#options.stdin) process.stdin.destroy();
    this.#wake();
  }

  #send(input: SessionInput): void {
    this.#urgent.push(input);
    this.#wake();
  }

  #openTerminal(): void {
    if (this.#options.stdin) {
      process.stdin.setRawMode(true);
      keepOutput();
      this.#undo.push(() => process.stdin.setRawMode(false));
    }
    const resized = () => this.#send({ case: "resize", value: Session.size() });
    process.stdout.on("resize", resized);
    this.#undo.push(() => process.stdout.off("resize", resized));
  }

  #forwardSignals(): void {
    for (const name of forwarded) {
      const forward = () => {
        this.#interrupts += name === "SIGINT" ? 1 : 0;
        if (this.#interrupts > interruptsMax) {
          note("oci-node: the program does not end, and is left");
          process.exit(interruptedExitCode);
        }
        this.#send({ case: "signal", value: name });
      };
      process.on(name, forward);
      this.#undo.push(() => process.off(name, forward));
    }
  }
}

/** As libuv, Bun leaves it to the terminal to make CR LF of LF in raw mode: a program that moves the cursor by LF is lost then. */
function keepOutput(): void {
  Bun.spawnSync(["stty", "-opost"], {
    env: cleanEnvironment,
    stdin: "inherit",
    stdout: "ignore",
    stderr: "ignore",
  });
}
