import { constants } from "node:fs";
import { mkdir, open, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { dirname } from "node:path";
import { startStdinKeeper } from "../../native/interactive.ts";
import { errnoOf } from "../../std/error.ts";
import { SingleFlight } from "../../std/single-flight.ts";
import { RuntimeError } from "../error.ts";
import { type Host, monitorCgroup } from "../host.ts";
import type { ContainerPaths } from "../layout.ts";
import { checkSize, type TerminalSize } from "./exec-process.ts";

/** How a container was run. */
export interface AttachKind {
  readonly terminal: boolean;
  readonly stdin: boolean;
}

/** As control-D, which most programs at a terminal take for the end of their input. */
const endOfInput = new Uint8Array([0x04]);
const starting = new SingleFlight<void>();

/**
 * Somebody at a container's standard input, and at its terminal if it has one. Several may be: what they say comes in the order
 * in which it was said. Whoever leaves ends nothing; its output is in its log.
 */
export class Attachment {
  readonly #host: Host;
  readonly #paths: ContainerPaths;
  readonly #kind: AttachKind;
  #socket: Promise<Socket | undefined> | undefined;
  #closed = false;

  constructor(host: Host, paths: ContainerPaths, kind: AttachKind) {
    this.#host = host;
    this.#paths = paths;
    this.#kind = kind;
  }

  /** Waits until the container takes more; what it does not read any more is lost. @throws RuntimeError `bad_config` */
  async write(data: Uint8Array): Promise<void> {
    if (!this.#kind.stdin)
      throw new RuntimeError("bad_config", `container ${this.#paths.id} was run without standard input`, {
        next: "Run it with --interactive to have one.",
      });
    this.#socket ??= this.#connect();
    const socket = await this.#socket;
    if (this.#closed || socket === undefined || socket.destroyed || socket.write(data)) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        socket.off("drain", done).off("close", done);
        resolve();
      };
      socket.on("drain", done).on("close", done);
    });
  }

  /** Nothing more comes, from nobody: at a terminal that is a character that is typed. */
  async closeInput(): Promise<void> {
    if (!this.#kind.stdin) return;
    if (this.#kind.terminal) return await this.write(endOfInput);
    this.#socket ??= this.#connect();
    const socket = await this.#socket;
    if (socket === undefined || this.#closed) return;
    this.#closed = true;
    await writeFile(this.#paths.stdinEnd, "");
    socket.end();
  }

  /** Of the terminal; a container without one has no use for it. @throws RuntimeError `bad_config` */
  async resize(size: TerminalSize): Promise<void> {
    checkSize(size);
    if (!this.#kind.terminal || size.rows === 0 || size.columns === 0) return;
    try {
      const control = await open(this.#paths.control, constants.O_WRONLY | constants.O_NONBLOCK);
      await control.write(`1 ${size.rows} ${size.columns}\n`).finally(() => control.close());
    } catch (error) {
      // Its monitor is gone, or has not looked at the many before.
      if (!["ENOENT", "ENXIO", "EAGAIN", "EPIPE"].includes(errnoOf(error) ?? "")) throw error;
    }
  }

  /** Leaves. Safe to repeat. */
  async close(): Promise<void> {
    const ended = this.#closed;
    this.#closed = true;
    const socket = await this.#socket;
    if (!ended) socket?.destroy();
  }

  /** `undefined`: the container has ended. */
  async #connect(): Promise<Socket | undefined> {
    const present = await connectTo(this.#paths.stdinSocket);
    if (present !== undefined) return present;
    await starting.run(this.#paths.home, () => this.#startKeeper());
    return await connectTo(this.#paths.stdinSocket);
  }

  async #startKeeper(): Promise<void> {
    const { home, stdinSocket, stdinEnd } = this.#paths;
    await mkdir(dirname(stdinSocket), { recursive: true, mode: 0o700 });
    const pid = await startStdinKeeper(home, stdinSocket, stdinEnd);
    if (pid !== undefined)
      await this.#host.cgroups.moveMonitor(monitorCgroup(this.#host), pid).catch(() => {});
  }
}

/** `undefined`: nobody listens there. */
function connectTo(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.on("error", () => resolve(undefined));
    socket.once("connect", () => resolve(socket));
    // It says nothing; but its end is seen only by who reads.
    socket.resume();
  });
}
