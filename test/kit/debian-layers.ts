import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, tryRun } from "../../src/std/spawn.ts";
import { cachedFolder } from "./cache.ts";
import { digestOfFile, type Layer, writeLayout } from "./oci-layout.ts";

/** Names of Debian packages, a layer each: a package is in the first layer whose closure holds it. */
export type Groups = readonly (readonly string[])[];

/** File names of packages per layer, as apt resolves {@link Groups} now. */
export type Plan = readonly (readonly string[])[];

/** Directories that are links into usr, in the first layer. */
const merged = ["bin", "sbin", "lib", "lib64"];

/** What apt would install, layer by layer; made anew when apt's lists have changed, which takes some seconds. */
export async function debianPlan(name: string, groups: Groups): Promise<Plan> {
  const lists = "/var/lib/apt/lists";
  const names = (await readdir(lists).catch(() => [])).filter((file) => file.includes("Packages")).sort();
  const times = await Promise.all(names.map(async (file) => (await stat(join(lists, file))).mtimeMs));
  const dir = await cachedFolder(`${name}-plan`, { groups, names, times }, async (beside) => {
    await writeFile(join(beside, "plan.json"), JSON.stringify(await planGroups(groups)));
  });
  return (await Bun.file(join(dir, "plan.json")).json()) as Plan;
}

/** Makes root file systems in a scratch folder, one folder per layer, out of Debian packages and whatever is added. */
export class DebianLayers {
  readonly #scratch: string;
  #count = 0;

  private constructor(scratch: string) {
    this.#scratch = scratch;
  }

  /** Calls `action` with a fresh scratch folder, which is removed at the end. */
  static async inScratch<T>(action: (layers: DebianLayers) => Promise<T>): Promise<T> {
    const scratch = await mkdtemp(join(tmpdir(), "oci-node-layers-"));
    try {
      return await action(new DebianLayers(scratch));
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }

  /** Downloads the packages of all groups and makes a layer of each group. */
  async packages(groups: Groups, plan: Plan): Promise<Layer[]> {
    await mkdir(join(this.#scratch, "archives/partial"), { recursive: true });
    await writeFile(join(this.#scratch, "status"), "");
    await run(apt(this.#scratch, "--download-only", "install", ...groups.flat()), { timeoutMs: 600_000 });
    const layers: Layer[] = [];
    for (const files of plan) {
      layers.push(await this.#packageLayer(files.map((file) => join(this.#scratch, "archives", file))));
    }
    await rm(join(this.#scratch, "archives"), { recursive: true });
    return layers;
  }

  /** Writes the image of these layers and of one more, with a Python program that it runs. */
  async writeProgramImage(dir: string, layers: readonly Layer[], program: string): Promise<void> {
    const last = await this.add(async (root) => {
      await mkdir(join(root, "app"));
      await writeFile(join(root, "app/main.py"), program);
    });
    await writeLayout(dir, [...layers, last], {
      Env: [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        "PYTHONDONTWRITEBYTECODE=1",
      ],
      Cmd: ["python3", "/app/main.py"],
      WorkingDir: "/app",
    });
  }

  /**
   * A layer of what `fill` puts into the folder that it is given: the layer's own root. With `compile` its Python files
   * are compiled by the Python of the layers below. `level` is gzip's, 6 unless given.
   */
  async add(
    fill: (root: string) => Promise<void>,
    options: { compile?: boolean; level?: number } = {},
  ): Promise<Layer> {
    const index = this.#count++;
    const root = this.#root(index);
    await mkdir(root);
    await fill(root);
    if (options.compile === true) await this.#compilePython(index);
    return this.#tarLayer(index, [], options.level);
  }

  /** Runs a command in the tree that the layers made so far give, and gives what it printed. */
  async inside(argv: readonly string[]): Promise<string> {
    return this.#mounted(this.#count - 1, async (tree) => (await run(["chroot", tree, ...argv])).stdout);
  }

  #root(index: number): string {
    return join(this.#scratch, `layer-${index}`);
  }

  /** Unpacks packages without their scripts; what scripts would have linked and the image needs is linked here. */
  async #packageLayer(archives: readonly string[]): Promise<Layer> {
    const index = this.#count++;
    const root = this.#root(index);
    for (const name of merged) {
      await mkdir(join(root, "usr", name), { recursive: true });
      await symlink(`usr/${name}`, join(root, name));
    }
    const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"';
    for (const archive of archives) await run(["sh", "-c", unpack, "sh", archive, root]);
    for (const library of ["blas", "lapack"]) await linkAlternative(root, library);
    if (index === 0) await addAccounts(root);
    if (index > 0) await this.#compilePython(index);
    return this.#tarLayer(index, index === 0 ? [] : merged.flatMap((name) => ["--exclude", `./${name}`]));
  }

  /** Compiles the layer's Python files with the image's own Python, as installed packages are: a start must not do it anew. */
  async #compilePython(index: number): Promise<void> {
    const root = this.#root(index);
    const found = (pattern: string): string[] => [...new Bun.Glob(pattern).scanSync({ cwd: root })];
    const files = found("usr/**/*.py");
    if (files.length === 0) return;
    const compile = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-i", "-"];
    const stdin = files.map((file) => `/${file}`).join("\n");
    // A few files of the standard library are broken on purpose: compileall says so and exits with 1.
    await this.#mounted(index, (tree) => tryRun(["chroot", tree, ...compile], { stdin, timeoutMs: 600_000 }));
    const compiled = found("usr/**/*.pyc").length;
    if (compiled < files.length / 2)
      throw new Error(`only ${compiled} of ${files.length} Python files compiled`);
  }

  /** Mounts the layers up to `index`, that one writable, for as long as `action` takes. */
  async #mounted<T>(index: number, action: (tree: string) => Promise<T>): Promise<T> {
    const lower = Array.from({ length: index }, (_, below) => this.#root(index - 1 - below));
    const [tree, work] = [join(this.#scratch, "merged"), join(this.#scratch, "work")];
    await mkdir(tree, { recursive: true });
    await mkdir(work, { recursive: true });
    const options = `lowerdir=${lower.join(":")},upperdir=${this.#root(index)},workdir=${work}`;
    await run(["mount", "-t", "overlay", "overlay", "-o", options, tree]);
    try {
      return await action(tree);
    } finally {
      await run(["umount", tree]);
      await rm(work, { recursive: true });
    }
  }

  async #tarLayer(index: number, excludes: readonly string[], level = 6): Promise<Layer> {
    const tar = join(this.#scratch, `layer-${index}.tar`);
    const options = [
      "--sort=name",
      "--numeric-owner",
      "--mtime=@1767225600",
      "--format=pax",
      "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    ];
    await run(["tar", "-c", "-C", this.#root(index), ...options, ...excludes, "-f", tar, "."], {
      timeoutMs: 300_000,
    });
    const diffId = await digestOfFile(tar);
    await run(["gzip", `-${level}`, "-n", tar], { timeoutMs: 900_000 });
    return { compression: "gzip", blob: { path: `${tar}.gz` }, diffId };
  }
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

/** File names of the packages of each group, less those of the groups before. */
async function planGroups(groups: Groups): Promise<string[][]> {
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

async function addAccounts(root: string): Promise<void> {
  for (const name of ["proc", "sys", "dev", "run", "tmp", "root", "app"])
    await mkdir(join(root, name), { recursive: true });
  await run(["chmod", "1777", join(root, "tmp")]);
  await writeFile(
    join(root, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
  );
  await writeFile(join(root, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
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
