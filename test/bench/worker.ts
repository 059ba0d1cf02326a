import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { type CliResult, runCli } from "../kit/node.ts";
import { Program } from "../kit/program.ts";
import { withCredentials } from "../kit/world.ts";
import type { Stage } from "./stage.ts";

/** A worker in a process of its own, beside a process with the other roles: what a host of a fleet runs. */
export class WorkerAlone {
  readonly worker: Program;
  readonly #control: Program;
  readonly #stage: Stage;

  private constructor(stage: Stage, control: Program, worker: Program) {
    this.#stage = stage;
    this.#control = control;
    this.worker = worker;
  }

  static async start(stage: Stage): Promise<WorkerAlone> {
    const port = await freePort();
    const hosts = [...stage.registry.insecureHosts, stage.link.host].map((host) => `"${host}"`);
    const path = join(stage.dir, "config.toml");
    const text = [
      `data_dir = "${stage.dataDir}"`,
      'gateway.listen = "127.0.0.1:0"',
      `scheduler.listen = "127.0.0.1:${port}"`,
      `worker.scheduler_url = "https://127.0.0.1:${port}"`,
      // Room for a hundred containers, whatever this machine has.
      "worker.cpu = 1000",
      'worker.memory = "1000Gi"',
      `registry.insecure = [${hosts.join(", ")}]`,
    ];
    await writeFile(path, `${text.join("\n")}\n`, { mode: 0o600 });
    const start = (roles: string): Program =>
      new Program([...stage.command, `--role=${roles}`, "--config", path], { env: environmentOf(stage) });
    const control = start("gateway,scheduler");
    let worker: Program | undefined;
    try {
      await control.waitFor(/^ready /m, 60_000);
      worker = start("worker");
      await worker.waitFor(/^ready worker$/m, 60_000);
      return new WorkerAlone(stage, control, worker);
    } catch (error) {
      await worker?.stop();
      await control.stop();
      throw error;
    }
  }

  async ok(args: readonly string[]): Promise<string> {
    const result: CliResult = await runCli(this.#stage.command, args, {
      env: environmentOf(this.#stage),
      timeoutMs: 300_000,
    });
    if (result.code !== 0) throw new Error(`oci-node ${args.join(" ")}: ${result.stderr}`);
    return result.stdout.trim();
  }

  /** Builds an image and gives its id. */
  build(reference: string): Promise<string> {
    return this.ok(["image", "build", reference, ...withCredentials]);
  }

  async stop(): Promise<void> {
    await this.worker.stop("SIGTERM", 60_000);
    await this.#control.stop();
  }
}

function environmentOf(stage: Stage): Record<string, string> {
  return { ...stage.env, HOME: stage.dir, XDG_CONFIG_HOME: join(stage.dir, "xdg") };
}

/** A port that nobody listens on now. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
