import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

const root = join(import.meta.dir, "..");

/** Debian packages whose static libraries are in the native library, or in the holder. */
const linkedPackages = ["libc6-dev", "libfuse3-dev", "zlib1g-dev", "libdeflate-dev", "libzstd-dev"];

interface LockedPackage {
  readonly version: string;
  readonly license?: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
}

/** Writes the licenses of everything inside the executable into a folder. Fails when one cannot be found. */
export async function writeLicences(target: string): Promise<void> {
  await cp(join(import.meta.dir, "licences"), target, { recursive: true });
  for (const name of linkedPackages) {
    await cp(`/usr/share/doc/${name}/copyright`, join(target, `${name}.txt`), { dereference: true });
  }
  await mkdir(join(target, "npm"));
  const lock = JSON.parse(await readFile(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, LockedPackage>;
  };
  for (const [path, entry] of Object.entries(lock.packages)) {
    if (path === "" || entry.dev === true || entry.devOptional === true) continue;
    const name = path.replace(/^.*node_modules\//, "");
    await writeFile(
      join(target, "npm", `${name.replaceAll("/", "_")}.txt`),
      await npmLicence(path, name, entry),
    );
  }
}

async function npmLicence(path: string, name: string, { version, license }: LockedPackage): Promise<string> {
  const files = (await readdir(join(root, path)))
    .filter((file) => /^(licen[cs]e|notice|copying)/i.test(file))
    .sort();
  const texts = await Promise.all(files.map((file) => readFile(join(root, path, file), "utf8")));
  if (texts.length === 0) {
    if (license === undefined) throw new Error(`npm package ${name} says nowhere what its license is`);
    texts.push(`The package comes without the text of its license, which is ${license}.\n`);
    if (license.includes("Apache-2.0"))
      texts.push("The Apache License 2.0 is in the file LICENSE at the top.\n");
  }
  return `${name} ${version}, ${license ?? "see below"}: https://www.npmjs.com/package/${name}\n\n${texts.join("\n")}`;
}
