import { copyFile, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { cachedFolder } from "../kit/cache.ts";
import { runCli } from "../kit/node.ts";
import { Program } from "../kit/program.ts";
import type { Container } from "../kit/world.ts";
import { withCredentials } from "../kit/world.ts";
import { type Benchmark, figure, percentile, samples } from "./figure.ts";
import type { Stage } from "./stage.ts";

const cachedMebibytes = 32;
const uncachedMebibytes = 256;
const roundsPerChill = 5;

interface Slow {
  readonly file: string;
  readonly atMs: number;
  readonly tookMs: number;
}

/**
 * A worker is killed and started again, each time from the other one of two executables, under a container that reads all
 * the time: pages that are in the worker's cache but not in the kernel's memory, and some that are nowhere yet, over the
 * link. Every page is compared with what it has to be.
 */
export const handover: Benchmark = {
  name: "handover",
  about: "a worker killed and started again from another path, a hundred times, under a container that reads",
  async run({ stage, rounds, tell }) {
    const reader = await compiledReader();
    const image = await busyboxImage({
      compression: "none",
      extra: [
        { path: "reader", data: await readFile(join(reader, "reader")), mode: 0o755 },
        { path: "cached", data: await readFile(join(reader, "cached")) },
        { path: "uncached", data: await readFile(join(reader, "uncached")) },
      ],
    });
    const reference = await stage.pushed(image, "bench/handover:1");
    const cluster = await Cluster.start(stage);
    try {
      await cluster.cli("image", "build", "--index-only", reference, ...withCredentials);
      // Every byte of one file is in the worker's cache then.
      await cluster.cli("run", reference, "--", "md5sum", "/cached");
      const id = await cluster.cli("run", "-d", reference, "--", "/reader", "/cached", "/uncached", "/stop");
      await cluster.reaches(id, "running");
      const killedMs: number[] = [];
      const readyMs: number[] = [];
      const wanted = rounds(100);
      for (let round = 0; round < wanted; round += 1) {
        if (round % roundsPerChill === 0) await forgetPages(stage);
        killedMs.push(Date.now());
        readyMs.push(await cluster.replaceWorker());
        // Not always at the same point of what the worker does after its start.
        await Bun.sleep((round * 97) % 400);
        if (round % 20 === 19) tell(`${round + 1} of ${wanted} rounds`);
      }
      await stopReader(id);
      const { exitCode, state, reason } = await cluster.reaches(id, "exited", "failed", "stopped");
      const lines = (await cluster.cli("logs", id)).split("\n");
      const [reads = 0, errors = Number.NaN, wrong = Number.NaN] = (lines.at(-1) ?? "")
        .split(" ")
        .map(Number);
      tell(
        `${reads} reads, ${errors} errors, ${wrong} wrong; the container ${state} with ${exitCode} ${reason ?? ""}`,
      );
      return figuresOf(lines.flatMap(slowOf), killedMs, readyMs, { reads, errors, wrong });
    } finally {
      await cluster.stop();
    }
  },
};

function figuresOf(
  slow: readonly Slow[],
  killedMs: readonly number[],
  readyMs: readonly number[],
  counts: { readonly reads: number; readonly errors: number; readonly wrong: number },
) {
  const longest = (file: string) =>
    killedMs.map((from, round) => {
      const until = killedMs[round + 1] ?? Number.POSITIVE_INFINITY;
      const during = slow.filter(
        (read) => read.file === file && read.atMs + read.tookMs >= from && read.atMs < until,
      );
      return Math.max(0, ...during.map(({ tookMs }) => tookMs));
    });
  const [cached, uncached] = [longest("cached"), longest("uncached")];
  return [
    figure("handover/read-errors", counts.errors + counts.wrong, "reads", 0, { detail: counts }),
    figure("handover/stall-cached-p99", percentile(cached, 0.99), "ms", 500, {
      from: [cached],
      detail: { milliseconds: samples(cached) },
    }),
    figure("handover/stall-uncached-p99", percentile(uncached, 0.99), "ms", undefined, {
      from: [uncached],
      detail: { milliseconds: samples(uncached) },
    }),
    figure("handover/worker-ready", percentile(readyMs, 0.5), "ms", undefined, { from: [readyMs] }),
  ];
}

function slowOf(line: string): Slow[] {
  const match = /^(\w+) ([\d.]+) ([\d.]+)/.exec(line);
  return match === null ? [] : [{ file: match[1] ?? "", atMs: Number(match[2]), tookMs: Number(match[3]) }];
}

/** A control plane that stays, and a worker that does not. */
class Cluster {
  readonly #stage: Stage;
  readonly #control: Program;
  readonly #executables: readonly string[];
  readonly #config: string;
  #worker: Program;
  #started = 1;

  private constructor(
    stage: Stage,
    control: Program,
    worker: Program,
    executables: readonly string[],
    config: string,
  ) {
    this.#stage = stage;
    this.#control = control;
    this.#worker = worker;
    this.#executables = executables;
    this.#config = config;
  }

  static async start(stage: Stage): Promise<Cluster> {
    const [executable = ""] = stage.command;
    const copy = join(stage.dir, "oci-node-next");
    await copyFile(executable, copy);
    const config = join(stage.dir, "handover.toml");
    const scheduler = await freePort();
    const hosts = [...stage.registry.insecureHosts, stage.link.host].map((host) => `"${host}"`);
    await writeFile(
      config,
      `data_dir = "${stage.dataDir}"
       log_level = "warning"
       gateway.listen = "127.0.0.1:0"
       scheduler.listen = "127.0.0.1:${scheduler}"
       registry.insecure = [${hosts.join(", ")}]
       [worker]
       scheduler_url = "https://127.0.0.1:${scheduler}"
       background_fetch = false
       traces = false\n`,
      { mode: 0o600 },
    );
    const env = environmentOf(stage);
    const control = new Program([executable, "--role=gateway,scheduler", "--config", config], { env });
    await control.waitFor(/^ready /m, 60_000);
    const worker = new Program([executable, "--role=worker", "--config", config], { env });
    await worker.waitFor(/^ready worker$/m, 60_000);
    return new Cluster(stage, control, worker, [executable, copy], config);
  }

  async cli(...args: string[]): Promise<string> {
    const options = { env: { ...environmentOf(this.#stage), ...this.#stage.env }, timeoutMs: 300_000 };
    const result = await runCli(this.#stage.command, args, options);
    if (result.code !== 0) throw new Error(`oci-node ${args[0]} failed: ${result.stderr}`);
    return result.stdout.trim();
  }

  async reaches(id: string, ...states: string[]): Promise<Container> {
    for (const deadline = Date.now() + 60_000; ; ) {
      const container = JSON.parse(await this.cli("inspect", id, "--json")) as Container;
      if (states.includes(container.state)) return container;
      if (Date.now() > deadline) throw new Error(`the container is ${container.state}: ${container.reason}`);
    }
  }

  /** Kills the worker and starts it again at once, from the other executable. Gives the time until it was ready. */
  async replaceWorker(): Promise<number> {
    const begun = performance.now();
    await this.#worker.stop("SIGKILL");
    const executable = this.#executables[this.#started++ % this.#executables.length] ?? "";
    this.#worker = new Program([executable, "--role=worker", "--config", this.#config], {
      env: environmentOf(this.#stage),
    });
    await this.#worker.waitFor(/^ready worker$/m, 60_000);
    return performance.now() - begun;
  }

  async stop(): Promise<void> {
    await this.#worker.stop("SIGTERM", 60_000);
    await this.#control.stop();
  }
}

function environmentOf(stage: Stage): Record<string, string> {
  return { HOME: stage.dir, XDG_CONFIG_HOME: join(stage.dir, "config") };
}

/**
 * Lets the kernel forget what it has of the image, so that reads go to the worker again; but nothing else, as
 * dropping all caches would: the executables are of another matter.
 */
async function forgetPages(stage: Stage): Promise<void> {
  const found = await Array.fromAsync(
    new Bun.Glob("*/{root,blobs}/{cached,uncached,[0-9]*}").scan(mountsOf(stage)),
  );
  for (const file of found.toSorted().reverse())
    await run(["dd", `if=${join(mountsOf(stage), file)}`, "iflag=nocache", "count=0", "status=none"]);
}

function mountsOf(stage: Stage): string {
  return join(stage.dataDir, "worker/mounts/mounts");
}

/** The program, and the two files that it knows by heart. */
async function compiledReader(): Promise<string> {
  const source = join(import.meta.dir, "reader.c");
  return await cachedFolder("handover", await Bun.file(source).text(), async (beside) => {
    const program = join(beside, "reader");
    await run(["gcc", "-O2", "-Wall", "-static", "-pthread", "-o", program, source], { timeoutMs: 60_000 });
    const make = async (name: string, mebibytes: number, seed: number) => {
      const script = `"$0" make ${mebibytes} ${seed} > "$1"`;
      await run(["sh", "-c", script, program, join(beside, name)], { timeoutMs: 60_000 });
    };
    await make("cached", cachedMebibytes, 1);
    await make("uncached", uncachedMebibytes, 2);
  });
}

/** Tells the reader to end, from outside of the node. */
async function stopReader(id: string): Promise<void> {
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
    const argv = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (cgroup.includes(id) && argv.startsWith("/reader"))
      return await writeFile(`/proc/${pid}/root/stop`, "");
  }
  throw new Error(`the reader in container ${id} is not there`);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
