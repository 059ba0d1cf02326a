// Builds native/out/liboci_node.so, the C half of the lazy mount, from native/src/*.c, and the small programs beside it:
// native/out/oci-node-holder.elf, which outlives it, from native/src/holder/*.c, and native/out/oci-node-interactive.elf, by
// which people reach programs in containers, from native/src/interactive/*.c:
//
//   node native/build.mjs            (build when something changed)
//   node native/build.mjs --force
//
// gcc and static libfuse3, zlib, libdeflate and zstd from the distribution's own -dev packages. The result must run on any glibc
// machine without installing anything, so it may need libc.so.6 alone; that is checked, not hoped for.
import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const native = dirname(fileURLToPath(import.meta.url));
const sourceDir = join(native, "src");
const outDir = join(native, "out");
const programDirs = ["holder", "interactive"].map((name) => join(sourceDir, name));
const output = join(outDir, "liboci_node.so");
const programOutputs = programDirs.map((dir) => join(outDir, `oci-node-${basename(dir)}.elf`));
const compiler = process.env.CC ?? "gcc";

const compileFlags = [
  "-std=gnu11",
  "-O2",
  "-g1",
  "-fPIC",
  "-pthread",
  "-D_GNU_SOURCE",
  "-D_FILE_OFFSET_BITS=64",
  "-D_FORTIFY_SOURCE=2",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-fstack-protector-strong",
  "-fno-strict-aliasing",
  "-fno-semantic-interposition",
];
const linkFlags = [
  "-shared",
  "-pthread",
  "-Wl,-z,relro,-z,now,-z,noexecstack,-z,defs",
  "-Wl,--exclude-libs,ALL",
  "-Wl,--gc-sections",
  "-Wl,--build-id=sha1",
];
const staticLibraries = ["libfuse3.a", "libz.a", "libdeflate.a", "libzstd.a"];
const nextStep =
  "Install them: apt-get install build-essential libfuse3-dev zlib1g-dev libdeflate-dev libzstd-dev";

/**
 * Exports `oci_*` and nothing else. libfuse's objects carry symbol versions (FUSE_3.0 …) which the linker refuses
 * unless the nodes are declared here.
 */
const versionScript = `OCI_NODE { global: oci_*; local: *; };
${["3.0", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.12", "3.17", "3.18"].map((v) => `FUSE_${v} {};`).join("\n")}
`;

class BuildError extends Error {}

function outputOf(argv) {
  const result = spawnSync(argv[0], argv.slice(1), {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C" },
  });
  if (result.error !== undefined) throw new BuildError(`${argv[0]} could not be started. ${nextStep}`);
  if (result.status !== 0) throw new BuildError(`${argv.join(" ")}\n${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** Compiles one file; resolves when the compiler has said yes. */
function compile(source, object) {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler, [...compileFlags, "-c", source, "-o", object], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    child.stdout.on("data", (chunk) => {
      said += chunk;
    });
    child.stderr.on("data", (chunk) => {
      said += chunk;
    });
    child.on("error", () => reject(new BuildError(`${compiler} could not be started. ${nextStep}`)));
    child.on("close", (code) => (code === 0 ? resolve() : reject(new BuildError(`${source}:\n${said}`))));
  });
}

/** Full path of a static library as the compiler finds it; gcc echoes the bare name when it does not. */
function staticLibrary(name) {
  const path = outputOf([compiler, `-print-file-name=${name}`]).trim();
  if (path === name) throw new BuildError(`${name} was not found. ${nextStep}`);
  return path;
}

/** Fails unless the library needs libc.so.6 alone and exports only `oci_*`. */
function check(library) {
  const dynamic = outputOf(["readelf", "-d", library]);
  const needed = [...dynamic.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map((match) => match[1]);
  if (needed.join() !== "libc.so.6")
    throw new BuildError(`needs ${needed.join(", ")}, but libc.so.6 alone is allowed`);
  const strays = outputOf(["nm", "-D", "--defined-only", library])
    .split("\n")
    .filter((line) => line !== "" && !/ A /.test(line))
    .map((line) => line.split(" ")[2] ?? "")
    .filter((name) => !name.startsWith("oci_"));
  if (strays.length > 0) throw new BuildError(`exports more than oci_*: ${strays.slice(0, 10).join(" ")}`);
}

function isFresh(inputs) {
  const outputs = [output, ...programOutputs];
  if (!outputs.every((path) => existsSync(path))) return false;
  const builtMs = Math.min(...outputs.map((path) => statSync(path).mtimeMs));
  return inputs.every((path) => statSync(path).mtimeMs <= builtMs);
}

/** A static executable: it is started from memory on hosts of any C library, and must weigh next to nothing. */
function buildProgram(sourcesDir, workDir) {
  const sources = readdirSync(sourcesDir)
    .filter((name) => name.endsWith(".c"))
    .map((name) => join(sourcesDir, name));
  const program = join(workDir, `oci-node-${basename(sourcesDir)}.elf`);
  const flags = compileFlags.filter((flag) => !["-fPIC", "-pthread", "-g1"].includes(flag));
  outputOf([
    compiler,
    ...flags,
    "-static",
    "-s",
    "-Wl,-z,relro,-z,now,-z,noexecstack",
    "-o",
    program,
    ...sources,
  ]);
  renameSync(program, join(outDir, basename(program)));
}

async function main() {
  const files = [sourceDir, ...programDirs].flatMap((dir) => readdirSync(dir).map((name) => join(dir, name)));
  const sources = files.filter((path) => path.endsWith(".c") && dirname(path) === sourceDir);
  if (!process.argv.includes("--force") && isFresh([fileURLToPath(import.meta.url), sourceDir, ...files]))
    return;
  mkdirSync(outDir, { recursive: true });
  const workDir = mkdtempSync(join(outDir, "build-"));
  try {
    const started = Date.now();
    const objects = sources.map((path) => join(workDir, `${path.slice(sourceDir.length + 1)}.o`));
    const archives = staticLibraries.map(staticLibrary);
    await Promise.all(sources.map((path, i) => compile(path, objects[i])));
    const script = join(workDir, "exports.map");
    writeFileSync(script, versionScript);
    const library = join(workDir, "liboci_node.so");
    outputOf([
      compiler,
      ...linkFlags,
      `-Wl,--version-script=${script}`,
      "-o",
      library,
      ...objects,
      ...archives,
    ]);
    check(library);
    for (const dir of programDirs) buildProgram(dir, workDir);
    renameSync(library, output);
    const kib = Math.round(readFileSync(output).length / 1024);
    process.stdout.write(`built native/out/liboci_node.so (${kib} KiB, ${Date.now() - started} ms)\n`);
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  process.stderr.write(`native/build.mjs: ${error.message.trim()}\n`);
  process.exitCode = 1;
}
