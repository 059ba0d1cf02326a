/**
 * `npm run build`: compiles everything into the one executable dist/oci-node, with the native library and PostgreSQL
 * inside. Neither a .env file nor a bunfig.toml beside the executable changes what it does.
 */
import { mkdir, rename, rm, stat } from "node:fs/promises";
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
    const closed = ["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];
    await run([process.execPath, "build", ...compile, ...closed, "src/main.ts", "--outfile", beside], {
      cwd: root,
      timeoutMs: 300_000,
    });
    await rename(beside, binaryPath);
  } finally {
    await rm(beside, { force: true });
  }
  return binaryPath;
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
