import { readFile } from "node:fs/promises";
import { cleanEnvironment, type RunResult, tryRun } from "../std/spawn.ts";
import { RuntimeError } from "./error.ts";

export type RuntimeName = "runc" | "crun" | "runsc";

const commandTimeoutMs = 30_000;

/** A program that implements the OCI runtime command line (runtime specification, "runtime.md"). */
export class OciRuntime {
  readonly name: RuntimeName;
  readonly program: string;
  /** Where it keeps its own state. */
  readonly root: string;

  constructor(name: RuntimeName, program: string, root: string) {
    this.name = name;
    this.program = program;
    this.root = root;
  }

  /** Runs the process of a container that was created. */
  async start(id: string): Promise<void> {
    const result = await this.#command("start", id);
    if (result.exitCode !== 0) throw startError(id, this.name, result.stderr);
  }

  /** Signals the container's first process, or all. A container that has ended or is not there is fine. */
  async kill(id: string, signal: number, who: "init" | "all"): Promise<void> {
    const result = await this.#command("kill", ...(who === "all" ? ["--all"] : []), id, String(signal));
    if (result.exitCode === 0 || /not running|does not exist|not found|no such|stopped/i.test(result.stderr))
      return;
    throw new RuntimeError(
      "create_failed",
      `container ${id} could not be signalled: ${result.stderr.trim()}`,
    );
  }

  /** Ends what is left of the container and forgets it. One that is not there is fine. */
  async delete(id: string): Promise<void> {
    const result = await this.#command("delete", "--force", id);
    if (result.exitCode === 0 || /does not exist|not found|no such/i.test(result.stderr)) return;
    throw new RuntimeError("cleanup_failed", `container ${id} could not be deleted: ${result.stderr.trim()}`);
  }

  /** `created`, `running`, `stopped`, …; `undefined` for a container that it does not know. */
  async status(id: string): Promise<string | undefined> {
    const result = await this.#command("state", id);
    if (result.exitCode !== 0) return undefined;
    return (JSON.parse(result.stdout) as { status?: string }).status;
  }

  #command(verb: string, ...rest: string[]): Promise<RunResult> {
    return tryRun([this.program, "--root", this.root, verb, ...rest], { timeoutMs: commandTimeoutMs });
  }
}

/** Where a program is, looked for in the standard directories only; a path is taken as it is. */
export function findProgram(name: string): string {
  const found = Bun.which(name, { PATH: cleanEnvironment["PATH"] ?? "" });
  if (found !== null) return found;
  throw new RuntimeError("runtime_missing", `${name} is not installed`, {
    next: `Install ${name}, or see \`oci-node doctor\`.`,
  });
}

/** The messages of a runtime's log in JSON lines, which say more than its standard error. Empty when there is none. */
export async function runtimeLogErrors(path: string): Promise<string> {
  const text = await readFile(path, "utf8").catch(() => "");
  const messages = text.split("\n").flatMap((line) => {
    try {
      const entry = JSON.parse(line) as { level?: string; msg?: string };
      return entry.level === "error" || entry.level === "fatal" ? [entry.msg ?? ""] : [];
    } catch {
      return [];
    }
  });
  return messages.join("; ");
}

/** What a runtime's words about a failed start mean (runc 1.1, crun 1.x; both pass the kernel's words on). */
export function startError(id: string, runtime: string, words: string): RuntimeError {
  const text = words.trim().slice(-2000);
  const program = /exec: "([^"]*)"|executable file `([^`]*)`|open executable `?([^`: ]*)/.exec(text);
  const named = JSON.stringify(program?.[1] ?? program?.[2] ?? program?.[3] ?? "");
  if (program !== null && /not found in \$PATH|no such file or directory/i.test(text)) {
    const where = /not found in \$PATH/.test(text) ? "on the $PATH of the image" : "in the image";
    return new RuntimeError("command_not_found", `${named} was not found ${where}`, {
      next: "Check the command, the image's Entrypoint and its PATH.",
    });
  }
  if (program !== null && /permission denied|is a directory/i.test(text)) {
    return new RuntimeError("permission", `${named} in the image may not be executed`, {
      next: "Check the file's mode, and that the image's user may read it.",
    });
  }
  if (/chdir to cwd|working directory/i.test(text)) {
    return new RuntimeError("permission", `the image's user may not enter the working directory: ${text}`);
  }
  if (/unable to find user|setgroups|setuid|setgid/i.test(text)) {
    return new RuntimeError("bad_user", `the container's user cannot be taken on: ${text}`);
  }
  if (/cgroup/i.test(text)) {
    return new RuntimeError("cgroup", `${runtime} could not set the limits of container ${id}: ${text}`, {
      next: "See `oci-node doctor` for what this host can limit.",
    });
  }
  return new RuntimeError("create_failed", `${runtime} could not start container ${id}: ${text}`);
}
