import { closeSync, openSync, writeSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SeededRandom } from "../../src/index/tar.test-kit.ts";
import { messageOf } from "../../src/std/error.ts";
import { targets } from "./targets.ts";

/** What a fuzzing process is asked, as JSON in its only argument. */
export interface FuzzOrder {
  readonly target: string;
  readonly seed: number;
  readonly seconds: number;
  /** At most so many inputs, from this one on. */
  readonly from: number;
  readonly count: number;
  /** Holds the number of the input at work, so that one that never ends, or ends the process, is known. */
  readonly progressPath: string;
  /** Where the input of a finding goes. */
  readonly findingPath: string;
}

/** The line that it prints. */
export interface FuzzAnswer {
  readonly executions: number;
  readonly finding?: { readonly number: number; readonly message: string };
}

/** The random sequence of an input: by its number, so that any of them can be made alone. */
export function sequenceOf(seed: number, number: number): SeededRandom {
  return new SeededRandom((Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)) >>> 0);
}

async function main(order: FuzzOrder): Promise<FuzzAnswer> {
  const target = targets.find(({ name }) => name === order.target);
  if (target === undefined) throw new Error(`there is no target ${order.target}`);
  const folder = await mkdtemp(join(tmpdir(), "oci-node-fuzz-"));
  const progress = openSync(order.progressPath, "w");
  const place = join(folder, "input");
  let executions = 0;
  try {
    await mkdir(join(folder, "seeds"));
    await target.prepare?.(join(folder, "seeds"));
    const end = performance.now() + order.seconds * 1000;
    await mkdir(place);
    for (let number = order.from; number < order.from + order.count && performance.now() < end; number += 1) {
      writeSync(progress, String(number).padStart(12), 0);
      const random = sequenceOf(order.seed, number);
      const input = target.make(random);
      try {
        await target.run(input, random, place);
      } catch (error) {
        await Bun.write(order.findingPath, input);
        return { executions, finding: { number, message: messageOf(error) } };
      }
      executions += 1;
      if (executions % 64 !== 0) continue;
      await rm(place, { recursive: true });
      await mkdir(place);
    }
    return { executions };
  } finally {
    closeSync(progress);
    await rm(folder, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  process.stdout.write(`${JSON.stringify(await main(JSON.parse(process.argv[2] ?? "") as FuzzOrder))}\n`);
  process.exit(0);
}
