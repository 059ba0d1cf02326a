import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { leftovers } from "./leftovers.ts";
import { type CliResult, runCli } from "./node.ts";
import { product } from "./product.ts";
import { Program } from "./program.ts";
import type { TestRegistry } from "./registry.ts";
import { freePort } from "./roles.ts";
import { credentialVariables } from "./world.ts";

/** A worker in a process of its own, with a data folder of its own. */
export interface ClusterWorker {
  readonly program: Program;
  /** Holds `data` and the file `token`. */
  readonly dir: string;
}

/** Gateway and scheduler in one process, and any number of workers in others, all of the compiled executable. */
export class TestCluster {
  readonly dir: string;
  readonly schedulerUrl: string;
  control: Program;
  readonly #command: readonly string[];
  readonly #env: Record<string, string>;
  readonly #registry: TestRegistry;
  readonly #programs: Program[] = [];

  private constructor(
    dir: string,
    schedulerUrl: string,
    command: readonly string[],
    registry: TestRegistry,
    control: (env: Record<string, string>) => Program,
  ) {
    this.dir = dir;
    this.schedulerUrl = schedulerUrl;
    this.#command = command;
    this.#registry = registry;
    this.#env = { XDG_CONFIG_HOME: join(dir, "xdg"), ...credentialVariables(registry) };
    this.control = control(this.#env);
  }

  /** @param more lines of TOML for gateway and scheduler */
  static async start(
    dir: string,
    registry: TestRegistry,
    more: readonly string[] = [],
  ): Promise<TestCluster> {
    const command = await product();
    const scheduler = `127.0.0.1:${await freePort()}`;
    const config = join(dir, "control.toml");
    const lines = [
      `data_dir = "${join(dir, "control")}"`,
      `index.dir = "${join(dir, "index")}"`,
      'gateway.listen = "127.0.0.1:0"',
      `scheduler.listen = "${scheduler}"`,
      `registry.insecure = ${JSON.stringify(registry.insecureHosts)}`,
      ...more,
    ];
    await writeFile(config, `${lines.join("\n")}\n`, { mode: 0o600 });
    const argv = [...command, "--role=gateway,scheduler", "--config", config];
    const cluster = new TestCluster(
      dir,
      `https://${scheduler}`,
      command,
      registry,
      (env) => new Program(argv, { env }),
    );
    await cluster.control.waitFor(/^ready /m, 60_000);
    return cluster;
  }

  async restartControl(): Promise<void> {
    await this.control.stop();
    const argv = [...this.#command, "--role=gateway,scheduler", "--config", join(this.dir, "control.toml")];
    this.control = new Program(argv, { env: this.#env });
    await this.control.waitFor(/^ready /m, 60_000);
  }

  /** Makes a join token, as an operator does. */
  async joinToken(): Promise<string> {
    return await this.ok("token", "create", "--role", "worker");
  }

  /** Starts a worker, which need not become one. @param token undefined: the file is not written */
  async begin(name: string, token: string | undefined, more: readonly string[] = []): Promise<ClusterWorker> {
    const dir = join(this.dir, name);
    await mkdir(dir, { recursive: true });
    if (token !== undefined) await writeFile(join(dir, "token"), `${token}\n`, { mode: 0o600 });
    const lines = [
      `data_dir = "${join(dir, "data")}"`,
      `index.dir = "${join(this.dir, "index")}"`,
      `worker.name = "${name}"`,
      `worker.scheduler_url = "${this.schedulerUrl}"`,
      `worker.token_file = "${join(dir, "token")}"`,
      `registry.insecure = ${JSON.stringify(this.#registry.insecureHosts)}`,
      ...more,
    ];
    await writeFile(join(dir, "config.toml"), `${lines.join("\n")}\n`, { mode: 0o600 });
    const argv = [...this.#command, "--role=worker", "--config", join(dir, "config.toml")];
    const program = new Program(argv, { env: this.#env });
    this.#programs.push(program);
    return { program, dir };
  }

  /** As {@link begin}, until it is one. */
  async worker(
    name: string,
    token: string | undefined,
    more: readonly string[] = [],
  ): Promise<ClusterWorker> {
    const worker = await this.begin(name, token, more);
    await worker.program.waitFor(/^ready worker$/m, 60_000);
    return worker;
  }

  cli(...args: string[]): Promise<CliResult> {
    return runCli(this.#command, args, { env: this.#env });
  }

  /** A command that must succeed, and what it printed. */
  async ok(...args: string[]): Promise<string> {
    const result = await this.cli(...args);
    if (result.code !== 0) throw new Error(`${args.join(" ")} ended with ${result.code}: ${result.stderr}`);
    return result.stdout.trim();
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.ok(...args, "--json")) as T;
  }

  /** Ends all, and tells what is left of it. */
  async stop(): Promise<string[]> {
    await Promise.all(this.#programs.map((program) => program.stop("SIGTERM", 30_000)));
    await this.control.stop();
    return await leftovers(this.dir);
  }
}
