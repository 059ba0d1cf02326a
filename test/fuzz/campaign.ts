import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cleanEnvironment } from "../../src/std/spawn.ts";
import { sweep } from "../kit/leftovers.ts";
import type { FuzzAnswer, FuzzOrder } from "./worker.ts";

export interface Campaign {
  readonly target: string;
  readonly seed: number;
  readonly seconds: number;
  readonly from?: number;
  readonly count?: number;
  /** Folder for the inputs of findings; one per target in it. */
  readonly findings: string;
}

export interface CampaignResult {
  readonly target: string;
  readonly executions: number;
  /** What was found, and the file that holds the input. */
  readonly finding?: { readonly message: string; readonly path: string };
}

const memoryBytesMax = 2 * 1024 ** 3;
const hangMs = 20_000;
const watchMs = 250;

/**
 * Fuzzes one target in a process of its own, until the time is over or something is found: a promise that is broken, an
 * input that takes 20 s or 2 GiB, a process that dies.
 */
export async function runCampaign(campaign: Campaign): Promise<CampaignResult> {
  const { target, seed, seconds } = campaign;
  const scratch = await mkdtemp(join(tmpdir(), "oci-node-campaign-"));
  const order: FuzzOrder = {
    target,
    seed,
    seconds,
    from: campaign.from ?? 0,
    count: campaign.count ?? Number.MAX_SAFE_INTEGER,
    progressPath: join(scratch, "progress"),
    findingPath: join(scratch, "finding"),
  };
  try {
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "worker.ts"), JSON.stringify(order)], {
      env: { ...cleanEnvironment, TMPDIR: scratch },
      stdout: "pipe",
      stderr: "pipe",
    });
    const watch = new Watch(child.pid, order.progressPath);
    const timer = setInterval(
      () => void watch.look().then((wrong) => wrong && child.kill("SIGKILL")),
      watchMs,
    );
    const [stdout, stderr] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    clearInterval(timer);
    const answer = parseAnswer(stdout);
    if (answer !== undefined && answer.finding === undefined)
      return { target, executions: answer.executions };
    const number = answer?.finding?.number ?? (await watch.number());
    const died = `the process died (${child.signalCode ?? child.exitCode}): ${stderr.trim().slice(-2000)}`;
    const message = answer?.finding?.message ?? watch.wrong ?? died;
    await mkdir(join(campaign.findings, target), { recursive: true });
    const path = join(campaign.findings, target, `seed-${seed}-input-${number}`);
    if (answer?.finding !== undefined) await Bun.write(path, await readFile(order.findingPath));
    await Bun.write(
      `${path}.txt`,
      `${message}\n\nbun test/fuzz/run.ts --only ${target} --seed ${seed} --from ${number}\n`,
    );
    return {
      target,
      executions: answer?.executions ?? Math.max(0, number - order.from),
      finding: { message, path },
    };
  } finally {
    // A process that was ended may have had an image mounted.
    await sweep(scratch);
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Looks at a fuzzing process from outside: its memory, and whether it still goes from input to input. */
class Watch {
  readonly #pid: number;
  readonly #progressPath: string;
  #last = -1;
  #since = performance.now();
  wrong: string | undefined;

  constructor(pid: number, progressPath: string) {
    this.#pid = pid;
    this.#progressPath = progressPath;
  }

  async number(): Promise<number> {
    return Number((await readFile(this.#progressPath, "utf8").catch(() => "")).trim() || "0");
  }

  async look(): Promise<string | undefined> {
    const number = await this.number();
    if (number !== this.#last) {
      this.#last = number;
      this.#since = performance.now();
    }
    const status = await readFile(`/proc/${this.#pid}/status`, "latin1").catch(() => "");
    const residentBytes = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
    if (residentBytes > memoryBytesMax)
      this.wrong ??= `input ${number} takes ${residentBytes} bytes of memory`;
    if (performance.now() - this.#since > hangMs)
      this.wrong ??= `input ${number} takes longer than ${hangMs} ms`;
    return this.wrong;
  }
}

function parseAnswer(stdout: string): FuzzAnswer | undefined {
  try {
    return JSON.parse(stdout) as FuzzAnswer;
  } catch {
    return undefined;
  }
}
