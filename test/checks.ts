import { cp, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { tryRun } from "../src/std/spawn.ts";

const root = join(import.meta.dir, "..");
const bin = (name: string): string => join(root, "node_modules/.bin", name);

/** A check of the whole repository: resolves to nothing when all is well, else to what is wrong. */
export interface Check {
  readonly name: string;
  run(scratch: string): Promise<string | undefined>;
}

/** What is checked beside the tests. `scratch` is a folder inside the repository, where tools find node_modules. */
export const checks: readonly Check[] = [
  { name: "the sources have no type errors", run: () => succeeds([bin("tsc"), "-p", "."]) },
  {
    name: "the sources are formatted and linted",
    run: () => succeeds([bin("biome"), "check", "--error-on-warnings"]),
  },
  { name: "the protocol follows buf's standard rules", run: () => succeeds([bin("buf"), "lint", "proto"]) },
  { name: "src/gen is what buf generates from proto", run: generatedCode },
  { name: "drizzle/ is what drizzle-kit generates from the schema", run: migrations },
  { name: "the executable compiles", run: () => succeeds([process.execPath, "native/binary.ts"]) },
];

async function succeeds(argv: readonly string[]): Promise<string | undefined> {
  const { exitCode, stdout, stderr } = await tryRun(argv, {
    cwd: root,
    timeoutMs: 300_000,
    env: toolEnvironment(),
  });
  return exitCode === 0 ? undefined : `${argv.slice(1).join(" ")}: exit code ${exitCode}\n${stdout}${stderr}`;
}

async function generatedCode(scratch: string): Promise<string | undefined> {
  const failed = await succeeds([bin("buf"), "generate", "--template", "proto/buf.gen.yaml", "-o", scratch]);
  return failed ?? succeeds(["diff", "-r", "src/gen", join(scratch, "src/gen")]);
}

async function migrations(scratch: string): Promise<string | undefined> {
  const out = join(scratch, "drizzle");
  await cp(join(root, "drizzle"), out, { recursive: true });
  // drizzle-kit takes the output folder relative to the working directory only.
  const relative = out.slice(root.length + 1);
  const schema = ["--dialect", "postgresql", "--schema", "./src/db/schema*.ts", "--out", `./${relative}`];
  const failed = await succeeds([bin("drizzle-kit"), "generate", "--name", "check", ...schema]);
  return failed ?? succeeds(["diff", "-r", "drizzle", out]);
}

function toolEnvironment(): Record<string, string> {
  const home = process.env["HOME"] ?? "/root";
  return { HOME: home, PATH: process.env["PATH"] ?? "/usr/bin:/bin", NO_COLOR: "1" };
}

/** Runs a check with a scratch folder of its own. */
export async function runCheck(check: Check): Promise<string | undefined> {
  const scratch = join(root, ".cache", `check-${process.pid}-${Bun.hash(check.name).toString(36)}`);
  await mkdir(scratch, { recursive: true });
  try {
    return await check.run(scratch);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
