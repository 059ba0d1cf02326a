/**
 * `npm test`: the checks of the whole repository, then every test file in a process of its own, two at a time. Closes with `N passed, M failed, K skipped`; exit code 1 when one failed.
 *
 *   npm test                      all
 *   npm test -- src/index tidy    only test files with one of these in their path
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cleanEnvironment } from "../src/std/spawn.ts";
import { checks, runCheck } from "./checks.ts";
import { readReport } from "./junit.ts";

const root = join(import.meta.dir, "..");
/**
 * Those of the product's parts that mount and run containers, one after another; and beside them, one after another, those of
 * the whole product. Two of one kind wait for one another: they share what a machine has only once, much memory above all.
 */
const ofParts = /^src\/(mount|native|runtime|role)\//;
const ofTheWhole = /^(test\/(journey|kit)|src\/sdk)\//;
/** Of these journeys' nodes hardly anything is run, or they mostly wait: they stand beside one that mounts. */
const light =
  /^test\/journey\/(bad-input|credential-helper|federation|gateway-tls|grants|key|loose-modes|refusal|registries|security|side-doors|tls-versions|trouble)/;
const testTimeoutMs = 120_000;
const fileTimeoutMs = 600_000;

interface Outcome {
  readonly name: string;
  readonly passed: number;
  readonly skipped: readonly string[];
  readonly failed: readonly string[];
  readonly output: string;
  readonly elapsedMs: number;
}

async function main(filters: readonly string[]): Promise<number> {
  const outcomes: Outcome[] = [];
  const report = (outcome: Outcome): void => {
    outcomes.push(outcome);
    printOutcome(outcome);
  };
  if (filters.length === 0) for (const check of checks) report(await checked(check));
  const files = testFiles(filters);
  if (files.length === 0)
    report(failure("test files", `no test file has ${filters.join(" or ")} in its path`));
  const scratch = await mkdtemp(join(tmpdir(), "oci-node-results-"));
  const mountsBefore = await ownMounts();
  try {
    await inTwoLanes(files, async (file) => report(await testFile(file, scratch)));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  const left = (await ownMounts()).filter((line) => !mountsBefore.includes(line));
  report({
    ...failure("the tests leave no mount behind", left.join("\n")),
    ...(left.length === 0 ? { passed: 1, failed: [] } : {}),
  });
  return printSummary(outcomes);
}

function testFiles(filters: readonly string[]): string[] {
  const found = ["src", "test"].flatMap((dir) => [
    ...new Bun.Glob(`${dir}/**/*.test.ts`).scanSync({ cwd: root }),
  ]);
  return found
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
    .sort();
}

/** Two at a time: the first lane takes those of the parts, the second those of the whole, then both the rest. */
async function inTwoLanes(files: readonly string[], work: (file: string) => Promise<void>): Promise<void> {
  const parts = files.filter((file) => ofParts.test(file));
  const whole = files.filter((file) => ofTheWhole.test(file) && !light.test(file));
  const others = files.filter((file) => !parts.includes(file) && !whole.includes(file));
  // The long ones first, so that no lane ends with one of them alone.
  const rest = [...others.filter((file) => light.test(file)), ...others.filter((file) => !light.test(file))];
  const drain = async (queue: string[]): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) await work(file);
  };
  await Promise.all([drain(parts), drain(whole)].map((lane) => lane.then(() => drain(rest))));
}

async function checked(check: (typeof checks)[number]): Promise<Outcome> {
  const started = performance.now();
  const wrong = await runCheck(check);
  const elapsedMs = performance.now() - started;
  if (wrong !== undefined) return { ...failure(check.name, wrong), elapsedMs };
  return { name: check.name, passed: 1, skipped: [], failed: [], output: "", elapsedMs };
}

async function testFile(file: string, scratch: string): Promise<Outcome> {
  const started = performance.now();
  const xml = join(scratch, `${file.replaceAll("/", "_")}.xml`);
  const child = Bun.spawn(
    [
      process.execPath,
      "test",
      "--timeout",
      String(testTimeoutMs),
      "--reporter=junit",
      "--reporter-outfile",
      xml,
      `./${file}`,
    ],
    {
      cwd: root,
      env: { ...cleanEnvironment, HOME: process.env["HOME"] ?? "/root", TMPDIR: tmpdir(), NO_COLOR: "1" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, fileTimeoutMs);
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  clearTimeout(timer);
  const found = readReport(await readFile(xml, "utf8").catch(() => ""));
  const failed = [...found.failed];
  if (late) failed.push(`it did not end in ${fileTimeoutMs / 1000} s`);
  else if (code !== 0 && failed.length === 0)
    failed.push(`it ended with ${child.signalCode ?? `exit code ${code}`}`);
  else if (found.passed + found.skipped.length + failed.length === 0) failed.push("it has no test");
  return {
    name: file,
    passed: found.passed,
    skipped: found.skipped,
    failed,
    output: stdout + stderr,
    elapsedMs: performance.now() - started,
  };
}

function failure(name: string, output: string): Outcome {
  return { name, passed: 0, skipped: [], failed: [""], output, elapsedMs: 0 };
}

function printOutcome({ name, passed, failed, output, elapsedMs }: Outcome): void {
  const seconds = (elapsedMs / 1000).toFixed(1).padStart(6);
  const count = passed + failed.length > 1 ? ` (${passed} of ${passed + failed.length})` : "";
  process.stdout.write(`${failed.length === 0 ? "ok    " : "FAILED"} ${seconds} s  ${name}${count}\n`);
  if (failed.length > 0) process.stdout.write(`${output.trimEnd().slice(-20_000).replace(/^/gm, "    ")}\n`);
}

function printSummary(outcomes: readonly Outcome[]): number {
  const sum = (count: (outcome: Outcome) => number): number =>
    outcomes.reduce((total, outcome) => total + count(outcome), 0);
  const failed = sum((outcome) => outcome.failed.length);
  for (const { name, failed: names, skipped } of outcomes) {
    for (const test of names)
      process.stdout.write(`failed: ${[name, test].filter((part) => part !== "").join(": ")}\n`);
    for (const test of skipped) process.stdout.write(`skipped: ${name}: ${test}\n`);
  }
  const skipped = sum((outcome) => outcome.skipped.length);
  process.stdout.write(`${sum((outcome) => outcome.passed)} passed, ${failed} failed, ${skipped} skipped\n`);
  return failed === 0 ? 0 : 1;
}

async function ownMounts(): Promise<string[]> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  return lines.filter((line) => line.includes(tmpdir()) || / - (erofs|fuse\.?\S*oci\S*) /.test(line));
}

process.exit(await main(process.argv.slice(2)));
