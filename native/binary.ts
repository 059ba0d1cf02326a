/**
 * `npm run build`: compiles everything into the one executable dist/oci-node, with the native library and PostgreSQL
 * inside. Neither a .env file nor a bunfig.toml beside the executable changes what it does.
 */
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "../src/std/error.ts";
import { run } from "../src/std/spawn.ts";

const root = join(import.meta.dir, "..");

/** Where the executable is put. */
export const binaryPath = join(root, "dist/oci-node");

/** Compiles the executable and gives its path. It is written beside its place and renamed: a running one is not disturbed. */
export async function buildBinary(): Promise<string> {
  const dist = join(root, "dist");
  const beside = join(dist, `.oci-node-${process.pid}`);
  await mkdir(dist, { recursive: true });
  try {
    const compile = ["--compile", "--minify", "--bytecode", "--format=esm", "--target=bun-linux-x64"];
    const closed = ["dotenv", "bunfig", "tsconfig", "package-json"].map(
      (name) => `--no-compile-autoload-${name}`,
    );
    await run([process.execPath, "build", ...compile, ...closed, "src/main.ts", "--outfile", beside], {
      cwd: root,
      timeoutMs: 300_000,
    });
    await closeEarlyVariables(beside);
    await rename(beside, binaryPath);
  } finally {
    await rm(beside, { force: true });
  }
  return binaryPath;
}

/**
 * Variables by which the environment runs other code in a compiled executable before a line of ours could refuse them: Bun
 * preloads what the one names, and is Bun itself by the other. There is no option against it.
 */
const earlyVariables = ["BUN_OPTIONS", "BUN_BE_BUN"];

/**
 * Takes the names of those variables out of an executable: nobody is asked for them any more, and the program refuses what
 * begins with `BUN_` by itself. Ours holds no such name, so all that are found are Bun's.
 */
async function closeEarlyVariables(path: string): Promise<void> {
  const bytes = Buffer.from(await readFile(path));
  const file = await open(path, "r+");
  try {
    for (const name of earlyVariables) {
      const places: number[] = [];
      for (let at = bytes.indexOf(name); at >= 0; at = bytes.indexOf(name, at + name.length)) places.push(at);
      // The one that Bun looks up ends with NUL, as getenv(3) wants it.
      if (!places.some((at) => bytes[at - 1] === 0 && bytes[at + name.length] === 0))
        throw new Error(`this Bun does not look ${name} up as the last one did: see how it can be closed`);
      // An empty name is never found (getenv(3)).
      for (const at of places) await file.write(new Uint8Array(1), 0, 1, at);
    }
  } finally {
    await file.close();
  }
}

if (import.meta.main) {
  const started = performance.now();
  const path = await buildBinary().catch((error) => {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  });
  const { size } = await stat(path);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  process.stdout.write(`${path} (${Math.round(size / 1024 / 1024)} MiB) in ${seconds} s\n`);
}
