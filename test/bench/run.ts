/**
 * `npm run bench`: measures, prints a table, writes dist/bench.json. `-- --only NAME` (may be repeated) runs some only; the
 * figures of the others stay in the file as they were. Exit code 1 when a benchmark could not run, or a goal is missed.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { coldStart } from "./cold-start.ts";
import type { Benchmark, Figure } from "./figure.ts";
import { indexTime } from "./index-time.ts";
import { warmRatios } from "./warm-ratios.ts";
import { workerMemory } from "./worker-memory.ts";

const benchmarks: readonly Benchmark[] = [coldStart, warmRatios, indexTime, workerMemory];
const output = join(import.meta.dir, "../../dist/bench.json");

async function main(argv: string[]): Promise<number> {
  let wanted = benchmarks;
  try {
    const { values } = parseArgs({ args: argv, options: { only: { type: "string", multiple: true } } });
    const names = values.only ?? benchmarks.map(({ name }) => name);
    const unknown = names.find((name) => !benchmarks.some((benchmark) => benchmark.name === name));
    if (unknown !== undefined) throw new TypeError(`there is no benchmark ${unknown}`);
    wanted = benchmarks.filter(({ name }) => names.includes(name));
  } catch (error) {
    const list = benchmarks.map(({ name, about }) => `  ${name.padEnd(14)} ${about}\n`).join("");
    process.stderr.write(`bench: ${(error as Error).message}\nnpm run bench [-- --only NAME]\n${list}`);
    return 2;
  }
  const figures: Figure[] = [];
  let failed = false;
  for (const benchmark of wanted) {
    const started = performance.now();
    process.stderr.write(`${benchmark.name}: ${benchmark.about}\n`);
    try {
      figures.push(...(await benchmark.run((text) => process.stderr.write(`  ${text}\n`))));
      process.stderr.write(`  done in ${((performance.now() - started) / 1000).toFixed(0)} s\n`);
    } catch (error) {
      failed = true;
      process.stderr.write(`  FAILED: ${error instanceof Error ? error.message : String(error)}\n`);
    }
  }
  await write(figures);
  printTable(figures);
  return failed || figures.some(({ holds }) => !holds) ? 1 : 0;
}

async function write(figures: readonly Figure[]): Promise<void> {
  const before = JSON.parse(await readFile(output, "utf8").catch(() => "[]")) as Figure[];
  const kept = before.filter(({ name }) => !figures.some((figure) => figure.name === name));
  await mkdir(join(output, ".."), { recursive: true });
  await writeFile(output, `${JSON.stringify([...kept, ...figures], undefined, 2)}\n`);
}

function printTable(figures: readonly Figure[]): void {
  const header = ["figure", "value", "goal", ""];
  const rows = figures.map(({ name, value, unit, goal, better, holds }) => [
    name,
    `${value} ${unit}`.trim(),
    `${better === "lower" ? "≤" : "≥"} ${goal}`,
    holds ? "holds" : "MISSED",
  ]);
  const widths = header.map((cell, column) =>
    Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  for (const row of [header, ...rows]) {
    process.stdout.write(
      `${row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd()}\n`,
    );
  }
}

process.exit(await main(process.argv.slice(2)));
