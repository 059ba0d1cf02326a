import { pipImage } from "../kit/pip-image.ts";
import { Program } from "../kit/program.ts";
import { type Benchmark, figure, percentile } from "./figure.ts";
import type { Stage } from "./stage.ts";

const readers = 64;

/** So many threads read the first bytes of files all over the image: nearly every read waits for the registry. */
const missing = `import os, threading
paths = [os.path.join(folder, name) for folder, _, names in os.walk("/usr") for name in names]
paths = [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]
def read(mine):
    for path in mine:
        with open(path, "rb") as file: file.read(4096)
print("go", flush=True)
threads = [threading.Thread(target=read, args=(paths[n::${readers}],)) for n in range(${readers})]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done", flush=True)`;

/**
 * How long the JavaScript thread of a node lets a trivial request wait while readers miss: the time from asking for a page
 * that is not there to the answer, every 5 ms. That is the loop's lag, what the request itself takes, and the waiting for a
 * processor; so a process that has nothing else to do is asked in turn, and what it takes stands beside.
 */
export const loopLag: Benchmark = {
  name: "loop-lag",
  about: `answers of a node to a trivial request while ${readers} readers wait for the registry`,
  async run({ stage, rounds, tell }) {
    const reference = await stage.pushed(await pipImage(tell), "bench/pip:1");
    const image = await stage.builtBefore(reference);
    const all: number[] = [];
    const idle: number[] = [];
    const p99s: number[] = [];
    for (let round = 0; round < rounds(5); round++) {
      await stage.forget();
      const waits = await waitsDuring(stage, image);
      all.push(...waits.node);
      idle.push(...waits.idle);
      p99s.push(percentile(waits.node, 0.99));
      const beside = percentile(waits.idle, 0.99).toFixed(1);
      tell(`p99 ${p99s.at(-1)?.toFixed(1)} ms of ${waits.node.length}; of an idle process ${beside} ms`);
    }
    return [
      figure("loop-lag/idle-process-p99", percentile(idle, 0.99), "ms", undefined, {
        detail: { samples: idle.length, p50: percentile(idle, 0.5) },
      }),
      figure("loop-lag/p99", percentile(all, 0.99), "ms", 20, {
        from: [p99s],
        detail: { samples: all.length, p50: percentile(all, 0.5), p999: percentile(all, 0.999), p99s },
      }),
    ];
  },
};

/** A server that does nothing else, in a process of its own. */
const idleServer =
  'const s = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("") }); console.log("port " + s.port);';

async function waitsDuring(stage: Stage, image: string): Promise<{ node: number[]; idle: number[] }> {
  const node = await stage.node();
  const other = new Program([process.execPath, "-e", idleServer]);
  try {
    const port = (await other.waitFor(/port (\d+)/))[1];
    const urls = { node: `${node.url}/nothing`, idle: `http://127.0.0.1:${port}/` };
    for (const url of Object.values(urls)) await wait(url);
    const program = node.start(["run", image, "--", "python3", "-c", missing]);
    await program.waitFor(/^go$/m, 60_000);
    const waits = { node: [] as number[], idle: [] as number[] };
    while (program.child.exitCode === null) {
      waits.node.push(await wait(urls.node));
      waits.idle.push(await wait(urls.idle));
      await Bun.sleep(5);
    }
    if (!/^done$/m.test(program.output)) throw new Error(`the readers failed: ${program.output}`);
    return waits;
  } finally {
    await other.stop("SIGKILL");
    await node.stopProcess();
    await node.discard();
  }
}

/** Milliseconds until the answer. */
async function wait(url: string): Promise<number> {
  const started = performance.now();
  await (await fetch(url)).arrayBuffer();
  return performance.now() - started;
}
