import { lstat, mkdir, mkdtemp, readdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type KitMember, makeTar, type SeededRandom } from "../../src/index/tar.test-kit.ts";
import { readCodeArchive } from "../../src/runtime/code/archive.ts";
import { CodeFolder } from "../../src/runtime/code/folder.ts";
import { RuntimeError } from "../../src/runtime/error.ts";
import { damageTar } from "./tar-maker.ts";
import { promise, refused, type Target } from "./target.ts";

const names = ["a", "b", "c"] as const;
const bytesMax = 64 * 1024;

/** A path of few names, so that archives meet themselves; sometimes one that leads out. */
function somePath(random: SeededRandom, ways: readonly string[]): string {
  const parts = Array.from({ length: 1 + random.next(4) }, () => random.pick([...names, ...names, ...ways]));
  return parts.join("/");
}

function someMember(random: SeededRandom): KitMember {
  const name = somePath(random, random.next(12) === 0 ? ["..", "."] : []);
  const type = random.pick(["0", "0", "5", "2", "2", "2", ...(random.next(40) === 0 ? ["1", "3", "6"] : [])]);
  const mode = random.next(0o10000);
  if (type !== "2")
    return { name, type, mode, ...(type === "0" ? { data: random.bytes(random.next(5000)) } : {}) };
  return { name, type, link: `${random.next(30) === 0 ? "/" : ""}${somePath(random, ["..", "..", "."])}` };
}

/** Archives of code: refused by name, or unpacked into a tree that nothing leads out of, with nothing made beside it. */
export const codeTarget: Target = {
  name: "code",
  make: (random) => {
    const tar = makeTar(Array.from({ length: 1 + random.next(8) }, () => someMember(random)));
    return random.next(5) === 0 ? damageTar(tar, random) : tar;
  },
  async run(tar, random, shared) {
    const folder = await mkdtemp(join(shared, "code-"));
    const root = join(folder, "code");
    await mkdir(root);
    // Whoever leaves meets something there.
    for (const name of names) await mkdir(join(folder, name, name, name), { recursive: true });
    const archive = gzipSync(tar);
    const pieceBytes = 1 + random.next(2000);
    async function* pieces() {
      for (let at = 0; at < archive.length; at += pieceBytes) yield archive.subarray(at, at + pieceBytes);
    }
    const refusal = await refused(RuntimeError, () =>
      readCodeArchive(pieces(), bytesMax, new CodeFolder(root)),
    );
    const looked = await refused(RuntimeError, () => readCodeArchive(pieces(), bytesMax));
    promise(
      refusal?.message === looked?.message,
      () => `${looked?.message} is ${refusal?.message} on the disk`,
    );
    promise(refusal === undefined || refusal.code === "code", () => `refused by ${refusal?.code}`);
    const beside = (await readdir(folder)).toSorted();
    promise(Bun.deepEquals(beside, [...names, "code"]), () => `there is ${beside.join(", ")}`);
    for await (const path of allBelow(root)) {
      const entry = await lstat(path);
      if (entry.isSymbolicLink()) {
        const target = await realpath(path).catch(() => root);
        promise(`${target}/`.startsWith(`${await realpath(root)}/`), () => `${path} leads to ${target}`);
        promise(refusal === undefined, () => `${path} was made of an archive that is refused`);
        continue;
      }
      promise(entry.isFile() || entry.isDirectory(), () => `${path} is something else`);
      const mode = entry.mode & 0o7777;
      promise([0o644, 0o755].includes(mode), () => `${path} has the mode ${mode.toString(8)}`);
    }
  },
};

/** Bun's own recursion follows links, and fails where they go in circles. */
async function* allBelow(folder: string): AsyncGenerator<string> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    yield path;
    if ((await lstat(path)).isDirectory()) yield* allBelow(path);
  }
}
