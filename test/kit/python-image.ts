import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, tryRun } from "../../src/std/spawn.ts";
import { cachedFolder } from "./cache.ts";
import { digestOfFile, type Layer, type LocalImage, readLayout, writeLayout } from "./oci-layout.ts";

/**
 * What the image is made of, a layer each: a package is in the first layer whose closure holds it. The names are the same
 * on Debian and Ubuntu. The last group is weight that the program does not read, as real images have it.
 */
const groups = [
  ["dash", "coreutils", "base-files", "libc-bin"],
  ["python3"],
  ["python3-numpy", "python3-pandas"],
  ["python3-sympy", "fonts-dejavu", "iso-codes"],
] as const;

/** The program of the last layer: prints what the demo shows, out of numpy and pandas. */
const program = `import time
started = time.monotonic()
import sys
import numpy, pandas
primes = [n for n in range(2, 100) if all(n % d for d in range(2, int(n ** 0.5) + 1))]
table = pandas.DataFrame({"prime": primes, "square": numpy.square(primes)})
print(f"python {sys.version.split()[0]}, numpy {numpy.__version__}, pandas {pandas.__version__}")
print(f"{len(table)} primes below 100; the sum of their squares is {int(table.square.sum())}")
print(f"imports and sum took {time.monotonic() - started:.2f} s", file=sys.stderr)
`;

/** The line that {@link program} prints on standard output for anybody who checks that it ran. */
export const pythonAnswer = "25 primes below 100; the sum of their squares is 65796";

/** The command that the benchmarks run. */
export const pythonImports = ["python3", "-c", "import numpy, pandas; print(numpy.arange(10).sum())"];

/**
 * An image with Python, numpy and pandas, made on the spot from the Debian or Ubuntu packages that this machine's apt serves:
 * five gzip layers, about 115 MB compressed. Kept in `.cache` for as long as apt names the same packages.
 */
export async function pythonImage(log: (line: string) => void = () => {}): Promise<LocalImage> {
  const plan = await cachedPlan();
  const dir = await cachedFolder("python", { version: 4, plan, program }, async (beside) => {
    const scratch = await mkdtemp(join(tmpdir(), "oci-node-python-"));
    try {
      log(`downloading ${plan.flat().length} packages`);
      const archives = await download(scratch);
      log("making layers");
      const layers: Layer[] = [];
      for (const [index, files] of plan.entries()) {
        layers.push(
          await packageLayer(
            scratch,
            index,
            files.map((file) => join(archives, file)),
          ),
        );
      }
      layers.push(await programLayer(scratch));
      await writeLayout(beside, layers, {
        Env: [
          "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
          "LANG=C.UTF-8",
          "PYTHONDONTWRITEBYTECODE=1",
        ],
        Cmd: ["python3", "/app/main.py"],
        WorkingDir: "/app",
      });
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  });
  return readLayout(dir);
}

/** apt resolves as on a machine without any package, so that the closure is whole. */
function apt(scratch: string, ...args: string[]): string[] {
  const options = [
    `Dir::State::status=${join(scratch, "status")}`,
    `Dir::Cache::archives=${join(scratch, "archives")}`,
    "APT::Sandbox::User=root",
    "APT::Install-Recommends=false",
    "Acquire::Retries=3",
    "Debug::NoLocking=true",
  ];
  return ["apt-get", "-qq", "-y", ...options.flatMap((option) => ["-o", option]), ...args];
}

/** The plan, made anew when apt's lists have changed; apt takes some seconds to make it. */
async function cachedPlan(): Promise<string[][]> {
  const lists = "/var/lib/apt/lists";
  const names = (await readdir(lists).catch(() => [])).filter((name) => name.includes("Packages")).sort();
  const times = await Promise.all(names.map(async (name) => (await stat(join(lists, name))).mtimeMs));
  const dir = await cachedFolder("python-plan", { groups, names, times }, async (beside) => {
    await writeFile(join(beside, "plan.json"), JSON.stringify(await planGroups()));
  });
  return (await Bun.file(join(dir, "plan.json")).json()) as string[][];
}

/** File names of the packages of each group, less those of the groups before. */
async function planGroups(): Promise<string[][]> {
  const scratch = await mkdtemp(join(tmpdir(), "oci-node-apt-"));
  try {
    await mkdir(join(scratch, "archives/partial"), { recursive: true });
    await writeFile(join(scratch, "status"), "");
    const first = await tryRun(apt(scratch, "--print-uris", "install", ...groups.flat()));
    if (first.exitCode !== 0) await run(["apt-get", "-qq", "update"], { timeoutMs: 300_000 });
    const seen = new Set<string>();
    const plan: string[][] = [];
    for (const [index] of groups.entries()) {
      const { stdout } = await run(
        apt(scratch, "--print-uris", "install", ...groups.slice(0, index + 1).flat()),
      );
      const files = [...stdout.matchAll(/^'[^']*' (\S+\.deb) /gm)].map((match) => match[1] as string);
      plan.push(files.filter((file) => !seen.has(file)).sort());
      for (const file of files) seen.add(file);
    }
    return plan;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function download(scratch: string): Promise<string> {
  await mkdir(join(scratch, "archives/partial"), { recursive: true });
  await writeFile(join(scratch, "status"), "");
  await run(apt(scratch, "--download-only", "install", ...groups.flat()), { timeoutMs: 600_000 });
  return join(scratch, "archives");
}

/** Unpacks packages without their scripts; what scripts would have linked and the image needs is linked here. */
async function packageLayer(scratch: string, index: number, archives: readonly string[]): Promise<Layer> {
  const root = join(scratch, `layer-${index}`);
  const merged = ["bin", "sbin", "lib", "lib64"];
  for (const name of merged) {
    await mkdir(join(root, "usr", name), { recursive: true });
    await symlink(`usr/${name}`, join(root, name));
  }
  for (const archive of archives) {
    await run([
      "sh",
      "-c",
      'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"',
      "sh",
      archive,
      root,
    ]);
  }
  for (const library of ["blas", "lapack"]) await linkAlternative(root, library);
  const excludes = index === 0 ? [] : merged.flatMap((name) => ["--exclude", `./${name}`]);
  if (index === 0) {
    for (const name of ["proc", "sys", "dev", "run", "tmp", "root", "app"])
      await mkdir(join(root, name), { recursive: true });
    await run(["chmod", "1777", join(root, "tmp")]);
    await writeFile(
      join(root, "etc/passwd"),
      "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    await writeFile(join(root, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
  }
  if (index > 0) await compilePython(scratch, index);
  return tarLayer(scratch, root, `layer-${index}`, excludes);
}

/** Compiles the layer's Python files with the image's own Python, as installed packages are: a start must not do it anew. */
async function compilePython(scratch: string, index: number): Promise<void> {
  const upper = join(scratch, `layer-${index}`);
  const files = [...new Bun.Glob("usr/lib/**/*.py").scanSync({ cwd: upper })].map((file) => `/${file}`);
  if (files.length === 0) return;
  const lower = Array.from({ length: index }, (_, below) => join(scratch, `layer-${index - 1 - below}`));
  const [merged, work] = [join(scratch, `merged-${index}`), join(scratch, `work-${index}`)];
  await mkdir(merged);
  await mkdir(work);
  const options = `lowerdir=${lower.join(":")},upperdir=${upper},workdir=${work}`;
  await run(["mount", "-t", "overlay", "overlay", "-o", options, merged]);
  try {
    const compile = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-i", "-"];
    // A few files of the standard library are broken on purpose: compileall says so and exits with 1.
    await tryRun(["chroot", merged, ...compile], { stdin: files.join("\n"), timeoutMs: 300_000 });
  } finally {
    await run(["umount", merged]);
  }
  const compiled = [...new Bun.Glob("usr/lib/**/*.pyc").scanSync({ cwd: upper })].length;
  if (compiled < files.length / 2)
    throw new Error(`only ${compiled} of ${files.length} Python files compiled`);
}

/** `libblas.so.3` is chosen by update-alternatives in a script that did not run. */
async function linkAlternative(root: string, library: string): Promise<void> {
  for (const triplet of await readdir(join(root, "usr/lib")).catch(() => [])) {
    const file = `lib${library}.so.3`;
    const target = join(root, "usr/lib", triplet, library, file);
    if (!(await Bun.file(target).exists())) continue;
    await symlink(`${library}/${file}`, join(root, "usr/lib", triplet, file));
  }
}

async function programLayer(scratch: string): Promise<Layer> {
  const root = join(scratch, "program");
  await mkdir(join(root, "app"), { recursive: true });
  await writeFile(join(root, "app/main.py"), program);
  return tarLayer(scratch, root, "program", []);
}

async function tarLayer(
  scratch: string,
  root: string,
  name: string,
  excludes: readonly string[],
): Promise<Layer> {
  const tar = join(scratch, `${name}.tar`);
  const options = [
    "--sort=name",
    "--numeric-owner",
    "--mtime=@1767225600",
    "--format=pax",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
  ];
  await run(["tar", "-c", "-C", root, ...options, ...excludes, "-f", tar, "."], { timeoutMs: 300_000 });
  const diffId = await digestOfFile(tar);
  await run(["gzip", "-6", "-n", tar], { timeoutMs: 300_000 });
  return { compression: "gzip", blob: { path: `${tar}.gz` }, diffId };
}
