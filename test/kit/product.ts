import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { binaryPath, buildBinary } from "../../native/binary.ts";

const root = join(import.meta.dir, "../..");
/** What the executable is made of. */
const inputs = ["src", "drizzle", "native/out", "package.json", "node_modules/.package-lock.json"];

let built: Promise<readonly string[]> | undefined;

/** The command line of oci-node out of the sources. */
export const fromSources: readonly string[] = [process.execPath, join(root, "src/main.ts")];

/** The command line of the compiled executable, which is built anew when anything that it is made of is newer. */
export function product(): Promise<readonly string[]> {
  built ??= build();
  return built;
}

async function build(): Promise<readonly string[]> {
  const times = await Promise.all(inputs.map((input) => newestMs(join(root, input))));
  if (Math.max(...times) >= (await newestMs(binaryPath))) await buildBinary();
  return [binaryPath];
}

async function newestMs(path: string): Promise<number> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return 0;
  if (!found.isDirectory()) return found.mtimeMs;
  const inside = await Promise.all((await readdir(path)).map((name) => newestMs(join(path, name))));
  return Math.max(0, ...inside);
}
