import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cleanEnvironment } from "../../src/std/spawn.ts";
import { leftovers, sweep } from "./leftovers.ts";
import { product } from "./product.ts";
import { Program } from "./program.ts";

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly elapsedMs: number;
  /** The most memory that was resident, of the command or of any process that it started and waited for. */
  readonly memoryBytes: number;
}

export interface CliOptions {
  /** Variables of the caller, beside PATH and where the context file is. */
  readonly env?: Record<string, string>;
  readonly stdin?: string;
  readonly timeoutMs?: number;
  readonly cwd?: string;
}

/** Runs a command to its end, whatever its exit code; fails only when it takes too long (default 60 s). */
export async function runCli(
  command: readonly string[],
  args: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  const started = performance.now();
  const child = Bun.spawn([...command, ...args], {
    env: { ...cleanEnvironment, ...options.env },
    stdin: options.stdin === undefined ? "ignore" : new Blob([options.stdin]),
    stdout: "pipe",
    stderr: "pipe",
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, options.timeoutMs ?? 60_000);
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  clearTimeout(timer);
  if (late)
    throw new Error(
      `oci-node ${args.join(" ")} did not end in ${options.timeoutMs ?? 60_000} ms:\n${stdout}${stderr}`,
    );
  const memoryBytes = child.resourceUsage()?.maxRSS ?? 0;
  return { code, stdout, stderr, elapsedMs: performance.now() - started, memoryBytes };
}

export interface NodeOptions {
  readonly insecureRegistries?: readonly string[];
  /** Default: the compiled executable. */
  readonly command?: readonly string[];
  /** A data folder that outlives this node; default: one of its own, removed at the end. */
  readonly dataDir?: string;
  /** More arguments of `dev`. */
  readonly args?: readonly string[];
  /** Variables of the node, beside PATH and where the context file is. */
  readonly env?: Record<string, string>;
}

/** A whole oci-node (`oci-node dev`) with data, configuration and context of its own, and the command line to it. */
export class TestNode {
  readonly url: string;
  readonly dataDir: string;
  /** Holds the data folder unless that was given, the context file and everything else of this node. */
  readonly home: string;
  readonly #program: Program;
  readonly #command: readonly string[];
  readonly #ownsData: boolean;

  private constructor(
    url: string,
    dataDir: string,
    home: string,
    program: Program,
    command: readonly string[],
    ownsData: boolean,
  ) {
    this.url = url;
    this.dataDir = dataDir;
    this.home = home;
    this.#program = program;
    this.#command = command;
    this.#ownsData = ownsData;
  }

  static async start(options: NodeOptions = {}): Promise<TestNode> {
    const command = options.command ?? (await product());
    const home = await mkdtemp(join(tmpdir(), "oci-node-test-"));
    const dataDir = options.dataDir ?? join(home, "data");
    // The database runs as a user of its own, who has to pass through.
    await chmod(home, 0o755);
    await mkdir(join(home, "cwd"));
    const insecure = (options.insecureRegistries ?? []).flatMap((host) => ["--insecure-registry", host]);
    const program = new Program(
      [
        ...command,
        "dev",
        "--data-dir",
        dataDir,
        "--listen",
        "127.0.0.1:0",
        ...insecure,
        ...(options.args ?? []),
      ],
      { env: { ...environmentOf(home), ...options.env }, cwd: join(home, "cwd") },
    );
    try {
      const ready = await program.waitFor(/^ready (\S+)$/m, 60_000);
      return new TestNode(ready[1] as string, dataDir, home, program, command, options.dataDir === undefined);
    } catch (error) {
      await program.stop("SIGKILL");
      await sweep(dataDir);
      await rm(home, { recursive: true, force: true });
      throw error;
    }
  }

  get pid(): number {
    return this.#program.pid;
  }

  /** What the node wrote: the `ready` line and its log. */
  get log(): string {
    return this.#program.output;
  }

  /** The log's records, one object per line. */
  get records(): Record<string, unknown>[] {
    const lines = this.log.split("\n").filter((line) => line.startsWith("{"));
    return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  waitForLog(pattern: RegExp, timeoutMs?: number): Promise<RegExpMatchArray> {
    return this.#program.waitFor(pattern, timeoutMs);
  }

  /** Runs a command of the command line against this node. */
  cli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    return runCli(this.#command, args, { ...options, env: { ...environmentOf(this.home), ...options.env } });
  }

  /** Starts a command and leaves it running. */
  start(args: readonly string[], env: Record<string, string> = {}): Program {
    return new Program([...this.#command, ...args], { env: { ...environmentOf(this.home), ...env } });
  }

  /** Runs a command that must succeed and gives its standard output without the last line's end. */
  async ok(args: readonly string[], options: CliOptions = {}): Promise<string> {
    const result = await this.cli(args, options);
    if (result.code !== 0) {
      throw new Error(
        `oci-node ${args.join(" ")} exited with ${result.code}:\n${result.stdout}${result.stderr}\nnode's log:\n${this.log.slice(-4000)}`,
      );
    }
    return result.stdout.replace(/\n$/, "");
  }

  /** Runs a command with `--json` that must succeed and gives what it printed as a value. */
  async json<T = Record<string, unknown>>(args: readonly string[], options: CliOptions = {}): Promise<T> {
    const separator = args.indexOf("--");
    const before = separator < 0 ? args.length : separator;
    return JSON.parse(
      await this.ok([...args.slice(0, before), "--json", ...args.slice(before)], options),
    ) as T;
  }

  /** Ids of all containers that the node knows, ended ones included. */
  async containerIds(): Promise<string[]> {
    const listed = await this.json<{ id: string }[]>(["ps", "--all"]);
    return listed.map(({ id }) => id);
  }

  /** Ends the node as a crash does: its own process only, at once. */
  async crash(): Promise<void> {
    await this.#program.stop("SIGKILL");
  }

  /** The exit code of a node that ends by itself. */
  ended(): Promise<number> {
    return this.#program.child.exited;
  }

  /** Asks the node to end and gives its exit code; its files stay. */
  stopProcess(): Promise<number> {
    return this.#program.stop("SIGTERM", 30_000);
  }

  /** Ends the node, checks that it left nothing behind on the machine, and removes its files. */
  async stop(): Promise<void> {
    const ids = await this.containerIds().catch(() => []);
    const code = await this.stopProcess();
    const left = await leftovers(this.dataDir, ids);
    await this.discard();
    if (left.length > 0) throw new Error(`the node left behind:\n${left.join("\n")}`);
    if (code !== 0) throw new Error(`the node ended with ${code}; its log:\n${this.log.slice(-4000)}`);
  }

  /** Removes the node and all that is left of it without any check: for the end of a test that failed. */
  async discard(): Promise<void> {
    await this.#program.stop("SIGKILL");
    await sweep(this.dataDir);
    if (this.#ownsData) await rm(this.dataDir, { recursive: true, force: true });
    await rm(this.home, { recursive: true, force: true });
  }
}

function environmentOf(home: string): Record<string, string> {
  return { HOME: home, XDG_CONFIG_HOME: join(home, "config") };
}
