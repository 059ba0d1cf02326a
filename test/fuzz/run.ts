/**
 * `npm run fuzz`: feeds hostile bytes to everything that reads what strangers wrote. Exit code 1 when something was found;
 * its input, and how to have it again, then stand below dist/fuzz.
 *
 *   npm run fuzz                                 every target, 60 s each
 *   npm run fuzz -- --only tar --seconds 600 --seed 7
 *   npm run fuzz -- --only tar --seed 7 --from 4711      that input alone
 *
 * The targets of the native half run under the address and undefined-behaviour sanitizers; see native/driver.c.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type CampaignResult, runCampaign } from "./campaign.ts";
import { nativeTargets, runNativeCampaign } from "./native.ts";
import { targets } from "./targets.ts";

const findings = join(import.meta.dir, "../../dist/fuzz");

async function main(argv: string[]): Promise<number> {
  const { values } = parseArgs({
    args: argv,
    options: {
      seconds: { type: "string", default: "60" },
      seed: { type: "string", default: String(Date.now() % 2 ** 31) },
      only: { type: "string", multiple: true },
      from: { type: "string" },
    },
  });
  const seed = Number(values.seed);
  const seconds = Number(values.seconds);
  const from = values.from === undefined ? undefined : Number(values.from);
  const known = [...targets.map(({ name }) => name), ...nativeTargets];
  const chosen = values.only ?? known;
  const unknown = chosen.filter((name) => !known.includes(name));
  if (unknown.length > 0 || ![seed, seconds, from ?? 0].every(Number.isFinite)) {
    process.stderr.write(
      `fuzz: unknown: ${unknown.join(" ") || argv.join(" ")}\n  next: targets are ${known.join(", ")}\n`,
    );
    return 2;
  }
  process.stdout.write(`seed ${seed}\n`);
  let found = 0;
  for (const target of chosen) {
    const native = nativeTargets.some((name) => name === target);
    const result = await (native ? runNativeCampaign : runCampaign)({
      target,
      seed,
      seconds,
      findings,
      ...(from === undefined ? {} : { from, count: 1 }),
    });
    print(result, seconds);
    if (result.finding !== undefined) found += 1;
  }
  process.stdout.write(`${found} findings\n`);
  return found === 0 ? 0 : 1;
}

function print({ target, executions, finding }: CampaignResult, seconds: number): void {
  const rate = Math.round(executions / seconds);
  process.stdout.write(
    `${finding === undefined ? "ok   " : "FOUND"} ${target.padEnd(12)} ${executions} inputs, ${rate}/s\n`,
  );
  if (finding !== undefined)
    process.stdout.write(`      ${finding.message.slice(0, 3000)}\n      ${finding.path}\n`);
}

process.exit(await main(process.argv.slice(2)));
