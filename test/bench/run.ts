/**
 * `npm run bench`: measures, prints a table, writes dist/bench.json. Exit code 1 when a benchmark could not run, or a goal
 * is missed; the others run all the same, and figures of benchmarks that did not run stay in the file as they were.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { benchmarks } from "./benchmarks.ts";
import type { Benchmark, Figure } from "./figure.ts";
import { Stage } from "./stage.ts";
import { tableOf } from "./table.ts";

const output = join(import.meta.dir, "../../dist/bench.json");
const usage = "npm run bench [-- --only NAME]… [--full] [--rounds N] [--list]";

interface Wanted {
  readonly benchmarks: readonly Benchmark[];
  readonly full: boolean;
  readonly rounds: number | undefined;
}

async function main(argv: string[]): Promise<number> {
  let wanted: Wanted | undefined;
  try {
    wanted = parse(argv);
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n${usage}\n${list()}`);
    return 2;
  }
  if (wanted === undefined) {
    process.stdout.write(`${usage}\n${list()}`);
    return 0;
  }
  const stage = await Stage.set();
  const interrupted = Promise.race(
    ["SIGINT", "SIGTERM"].map((signal) => new Promise((resolve) => process.once(signal, resolve))),
  ).then(() => 130);
  try {
    // What runs when a signal comes fails as its things are taken away, and is not waited for.
    return await Promise.race([runAll(stage, wanted), interrupted]);
  } finally {
    await stage.strike();
  }
}

function parse(argv: string[]): Wanted | undefined {
  const { values } = parseArgs({
    args: argv,
    options: {
      only: { type: "string", multiple: true },
      full: { type: "boolean", default: false },
      rounds: { type: "string" },
      list: { type: "boolean", default: false },
    },
  });
  if (values.list) return undefined;
  const names = values.only ?? benchmarks.map(({ name }) => name);
  const unknown = names.find((name) => !benchmarks.some((benchmark) => benchmark.name === name));
  if (unknown !== undefined) throw new TypeError(`there is no benchmark ${unknown}`);
  const rounds = values.rounds === undefined ? undefined : Number(values.rounds);
  if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0))
    throw new TypeError("--rounds takes a number from 1 on");
  return { benchmarks: benchmarks.filter(({ name }) => names.includes(name)), full: values.full, rounds };
}

function list(): string {
  return benchmarks.map(({ name, about }) => `  ${name.padEnd(14)} ${about}\n`).join("");
}

async function runAll(stage: Stage, wanted: Wanted): Promise<number> {
  const figures: Figure[] = [];
  const started = performance.now();
  let failed = false;
  for (const benchmark of wanted.benchmarks) {
    const begun = performance.now();
    const tell = (text: string): void => {
      const seconds = ((performance.now() - begun) / 1000).toFixed(0).padStart(5);
      process.stderr.write(`${seconds} s  ${text}\n`);
    };
    process.stderr.write(`${benchmark.name}: ${benchmark.about}\n`);
    try {
      const rounds = (usual: number): number => wanted.rounds ?? usual;
      const found = await benchmark.run({ stage, rounds, full: wanted.full, tell });
      figures.push(...found);
      process.stderr.write(tableOf(found).replaceAll(/^/gm, "         ").trimEnd().concat("\n"));
    } catch (error) {
      failed = true;
      tell(`FAILED: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (stage.struck) return 130;
    await write(figures);
    await stage.clear();
    tell("done");
  }
  process.stdout.write(tableOf(figures));
  process.stderr.write(`${((performance.now() - started) / 60_000).toFixed(1)} minutes in all\n`);
  return failed || figures.some(({ holds }) => !holds) ? 1 : 0;
}

async function write(figures: readonly Figure[]): Promise<void> {
  const before = JSON.parse(await readFile(output, "utf8").catch(() => "[]")) as Figure[];
  const kept = before.filter(({ name }) => !figures.some((figure) => figure.name === name));
  await mkdir(join(output, ".."), { recursive: true });
  await writeFile(output, `${JSON.stringify([...kept, ...figures], undefined, 2)}\n`);
}

process.exit(await main(process.argv.slice(2)));
