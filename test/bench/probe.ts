import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { cachedFolder } from "../kit/cache.ts";

/** A program in C (probe.c): what is measured takes less than a microsecond, and an interpreter would hide it. */
export async function compiledProbe(): Promise<string> {
  const source = join(import.meta.dir, "probe.c");
  const dir = await cachedFolder("probe", await Bun.file(source).text(), async (beside) => {
    const flags = ["-O2", "-Wall", "-static"];
    await run(["gcc", ...flags, "-o", join(beside, "probe"), source], { timeoutMs: 60_000 });
  });
  return join(dir, "probe");
}

/** Runs the probe and gives the numbers that it printed. */
export async function probe<Name extends string>(...args: string[]): Promise<Record<Name, number>> {
  const { stdout } = await run([await compiledProbe(), ...args], { timeoutMs: 600_000 });
  return JSON.parse(stdout) as Record<Name, number>;
}
