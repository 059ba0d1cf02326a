import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { waitForExit } from "../../src/native/process.ts";
import { run, tryRun } from "../../src/std/spawn.ts";
import { sweep } from "../kit/leftovers.ts";
import { runCli } from "../kit/node.ts";
import { oddImage } from "../kit/odd-image.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { TestRegistry } from "../kit/registry.ts";
import { writeRolesConfig } from "../kit/roles.ts";
import { inScratch, World, withCredentials } from "../kit/world.ts";

/** As a service manager or a shell may start it: cores are wanted. */
const withCores = ["bash", "-c", 'ulimit -c unlimited && exec "$@"', "bash"];

async function coreLimits(pid: number): Promise<string> {
  const limits = await readFile(`/proc/${pid}/limits`, "utf8");
  return /^Max core file size +(\S+) +(\S+)/m.exec(limits)?.slice(1).join(" ") ?? "";
}

/** A process of ours after its first lines. */
async function isProtected(pid: number): Promise<void> {
  const deadline = Date.now() + 30_000;
  while ((await coreLimits(pid)) !== "0 0")
    if (Date.now() > deadline) throw new Error(`process ${pid} may write cores of ${await coreLimits(pid)}`);
}

/** Ends a process as a bug does; where this user may (CAP_SYS_RESOURCE), with its limit put back, so that dumps count alone. */
async function crash(program: Program, signal: NodeJS.Signals): Promise<void> {
  await tryRun(["prlimit", "--pid", String(program.pid), "--core=unlimited:unlimited"]);
  await program.stop(signal, 30_000);
  expect(program.child.signalCode as string | null).not.toBe("SIGKILL");
}

const cores = async (dir: string): Promise<string[]> =>
  (await readdir(dir)).filter((name) => name.startsWith("core"));

test("a crash of whatever role or command writes no core, even where the limit is put back", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  const command = await product();
  await inScratch(async (dir) => {
    const cwd = join(dir, "cwd");
    await mkdir(cwd);
    const env = { XDG_CONFIG_HOME: join(dir, "xdg"), CANARY: "a value that a core would hold" };
    const config = await writeRolesConfig(dir, registry);
    const start = (...args: string[]) => new Program([...withCores, ...command, ...args], { env, cwd });
    const control = start("--role=gateway,scheduler", "--config", config);
    const running = [control];
    try {
      await control.waitFor(/^ready /m, 60_000);
      const worker = start("--role=worker", "--config", config);
      running.push(worker);
      await worker.waitFor(/^ready worker$/m, 60_000);
      const [merging, serving] = [start("internal", "merge-image"), start("internal", "serve-mount")];
      running.push(merging, serving);
      const postmaster = Number.parseInt(
        await readFile(join(dir, "data/postgres/data/postmaster.pid"), "utf8"),
        10,
      );
      for (const [program, signal] of [
        [worker, "SIGSEGV"],
        [control, "SIGABRT"],
        [merging, "SIGBUS"],
        [serving, "SIGQUIT"],
      ] as const) {
        await isProtected(program.pid);
        await crash(program, signal);
        expect(program.output).not.toContain("a value that");
      }
      // The database ends after its node, with a checkpoint.
      await waitForExit(postmaster);
      expect(await cores(cwd)).toEqual([]);
      // What is not protected leaves one here, where the machine's pattern says so.
      const pattern = await readFile("/proc/sys/kernel/core_pattern", "utf8");
      const other = new Program([...withCores, "cat"], { cwd });
      running.push(other);
      other.child.stdin.write("it runs\n");
      await other.child.stdin.flush();
      await other.waitFor(/it runs/);
      await other.stop("SIGSEGV");
      if (!/^[|/]/.test(pattern)) expect(await cores(cwd)).toHaveLength(1);
    } finally {
      for (const program of running) await program.stop("SIGKILL");
      await sweep(join(dir, "data"));
    }
  });
}, 120_000);

test("a command that holds a token shows itself to nobody, not even to other processes of its user", async () => {
  const command = await product();
  await inScratch(async (dir) => {
    const nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    const program = new Program([...nobody, ...command, "internal", "merge-image"], { cwd: dir });
    try {
      await isProtected(program.pid);
      const environment = `/proc/${program.pid}/environ`;
      const looked = await tryRun([...nobody, "cat", environment]);
      expect(looked.exitCode).not.toBe(0);
      expect(looked.stderr).toContain("Permission denied");
    } finally {
      await program.stop("SIGKILL");
    }
  });
});

test.each([
  ["BUN_OPTIONS", "--preload=./evil.js"],
  ["BUN_BE_BUN", "1"],
  ["BUN_CONFIG_VERBOSE_FETCH", "curl"],
  ["BUN_INSPECT", "127.0.0.1:0"],
  ["BUN_INSPECT_PRELOAD", "./evil.js"],
  ["BUN_JSC_dumpOptions", "0"],
  ["BUN_SOMETHING_NEW", "1"],
  ["NODE_OPTIONS", "--require=./evil.js"],
  ["NODE_TLS_REJECT_UNAUTHORIZED", "0"],
  ["NODE_DEBUG", "http2"],
  ["SSLKEYLOGFILE", "./keys"],
])("%s is refused by name before anything is done, and does nothing before that", async (name, value) => {
  const command = await product();
  await inScratch(async (dir) => {
    await writeFile(join(dir, "evil.js"), evil(join(dir, "ran")));
    for (const args of [["--version"], ["ps"], ["--role=worker"], ["internal", "merge-image"]]) {
      const result = await runCli(command, args, { cwd: dir, env: { [name]: value } });
      expect([result.code, result.stdout]).toEqual([2, ""]);
      expect(result.stderr).toContain(`oci-node: ${name} is set: `);
      expect(result.stderr).toContain(`Run it without ${name}.`);
    }
    expect(await readdir(dir)).toEqual(["evil.js"]);
  });
});

const evil = (leaves: string) => `require("fs").writeFileSync(${JSON.stringify(leaves)}, "ran");`;

test("what lies in the working directory changes nothing, and is not even opened", async () => {
  const command = await product();
  await inScratch(async (dir) => {
    const [hostile, ran] = [join(dir, "hostile"), join(dir, "ran")];
    await mkdir(join(hostile, "node_modules/@stricli/core"), { recursive: true });
    for (const name of ["evil.js", "node_modules/@stricli/core/index.js", "node_modules/evil.js", "main.ts"])
      await writeFile(join(hostile, name), evil(ran));
    const env = { HOME: dir, XDG_CONFIG_HOME: join(dir, "xdg") };
    const answers = async () => {
      const all = [];
      for (const args of [["--version"], ["secret", "ls"], ["index", "--help"]]) {
        const { code, stdout, stderr } = await runCli(command, args, {
          cwd: hostile,
          env,
          timeoutMs: 20_000,
        });
        all.push({ code, stdout, stderr });
      }
      return all;
    };
    const before = await answers();
    const files: Record<string, string> = {
      ".env": "OCI_NODE_URL=http://127.0.0.1:1\nOCI_NODE_TOKEN=x\nBUN_OPTIONS=--preload=./evil.js\n",
      "bunfig.toml": 'preload = ["./evil.js"]\n[run]\nbun = true\n',
      "tsconfig.json": '{"compilerOptions": {"paths": {"*": ["./evil.js"]}}}',
      "package.json": '{"type": "commonjs", "main": "evil.js", "imports": {"#*": "./evil.js"}}',
    };
    const named = [
      ...Object.keys(files),
      ".env.local",
      ".env.production",
      ".env.development",
      "oci-node.toml",
    ];
    for (const [name, text] of Object.entries(files)) await writeFile(join(hostile, name), text);
    expect(await answers()).toEqual(before);
    // Whoever opens one of these waits for a writer that never comes.
    for (const name of named) {
      await rm(join(hostile, name), { force: true });
      await run(["mkfifo", join(hostile, name)]);
    }
    expect(await answers()).toEqual(before);
    expect(await readdir(dir)).not.toContain("ran");
  });
});

async function processes(): Promise<{ pid: number; argv: string }[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  return await Promise.all(
    pids.map(async (pid) => ({
      pid: Number(pid),
      argv: await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => ""),
    })),
  );
}

/** Processes whose environment holds a text, with what they are. */
async function environmentsWith(text: string): Promise<{ pid: number; argv: string }[]> {
  const found: { pid: number; argv: string }[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const has = async () => (await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "")).includes(text);
    if (!(await has())) continue;
    const argv = await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "");
    // Not one that became another program in between.
    if (await has()) found.push({ pid: Number(pid), argv });
  }
  return found;
}

test("no process that a node or a command starts has anything of their environment", async () => {
  const canary = `canary-${randomUUID()}`;
  await using world = await World.start({ node: { env: { AWS_SECRET_ACCESS_KEY: canary } } });
  const image = await world.build("team/app:1");
  const id = await world.node.ok(["run", "-d", image.id, "--", "sh", "-c", "while :; do sleep 1; done"]);
  await world.reaches(id, "running");
  // Its own limit, not what was left of its worker's.
  expect(await world.node.ok(["run", image.id, "--", "cat", "/proc/self/limits"])).toMatch(
    /Max core file size +0 +0 /,
  );
  const seen = new Set<string>();
  const look = async () => {
    for (const { argv } of await processes()) seen.add(argv);
    return await environmentsWith(canary);
  };
  const reference = await world.push("team/other:1", { image: await oddImage() });
  const argvOf = (pid: number) => readFile(`/proc/${pid}/cmdline`, "latin1");
  const build = world.node.start(["image", "build", reference, ...withCredentials], {
    ...world.env,
    GITHUB_TOKEN: canary,
  });
  const pids = [world.node.pid, build.pid];
  const own = new Set<string>();
  const wrong: string[] = [];
  const lookForWrong = async () => {
    const found = await look();
    // A child that has not become its program yet is a copy of its parent.
    for (const pid of pids) own.add(await argvOf(pid).catch(() => ""));
    wrong.push(
      ...found.filter(({ pid, argv }) => !pids.includes(pid) && !own.has(argv)).map(({ argv }) => argv),
    );
  };
  while (build.child.exitCode === null && build.child.signalCode === null) await lookForWrong();
  await lookForWrong();
  expect(build.child.exitCode).toBe(0);
  expect(wrong).toEqual([]);
  // What is looked for is found where it is.
  expect((await environmentsWith(canary)).map(({ pid }) => pid)).toContain(world.node.pid);
  for (const { pid, argv } of await processes())
    if (argv.includes("oci-node-holder") && argv.includes(world.node.dataDir))
      expect([argv, await coreLimits(pid)]).toEqual([argv, "0 0"]);
  // What was looked at.
  const all = [...seen].map((argv) => argv.replaceAll("\0", " "));
  for (const child of [/postgres/, /conmon/, /oci-node-holder/, /internal index-layer/])
    expect([child, all.some((argv) => child.test(argv))]).toEqual([child, true]);
  await world.node.ok(["stop", "--timeout", "1", id]);
}, 120_000);
