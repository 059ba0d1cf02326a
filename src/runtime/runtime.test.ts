import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, mkdir, open, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { defaultOptions } from "../container/options.ts";
import { type Ending, imageConfig, TestHost, textOf } from "./runtime.test-kit.ts";
import type { Runtime } from "./runtime.ts";
import type { ContainerSpec } from "./spec.ts";

let host: TestHost;
let runtime: Runtime;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  expect(await readdir(join(host.stateDir, "logs"))).toEqual([]);
  await host.close();
});

const never = new AbortController().signal;

const runToEnd = (spec: ContainerSpec): Promise<Ending> => host.runToEnd(runtime, spec);

const sh = (script: string, more: Partial<ContainerSpec> = {}): Promise<Ending> =>
  runToEnd(host.spec(["sh", "-c", script], more));

const withConfig = (config: Parameters<typeof imageConfig>[0]): Partial<ContainerSpec> => ({
  imageConfig: imageConfig(config),
});

async function failureOf(spec: ContainerSpec, signal = never): Promise<{ code: string; message: string }> {
  const failure = await runtime.start(spec, signal).then(
    () => undefined,
    (error: unknown) => error as { code: string; message: string },
  );
  if (failure === undefined) throw new Error("the container started");
  expect(await readdir(join(host.stateDir, "containers"))).not.toContain(spec.id);
  return failure;
}

test("runs a command and reports its output and exit code", async () => {
  const { exit, output, errors } = await sh("echo out; echo err >&2; exit 7");
  expect(exit).toMatchObject({ exitCode: 7, oomKilled: false });
  expect(exit.signal).toBeUndefined();
  expect(Date.now() - exit.finishedAt.getTime()).toBeLessThan(60_000);
  expect(output).toBe("out\n");
  expect(errors).toBe("err\n");
});

test("names the signal that ended a container", async () => {
  const { exit } = await sh("kill -KILL $$; kill -SEGV 1; sh -c 'kill -SEGV $$'; exit $?");
  expect(exit).toMatchObject({ exitCode: 139, signal: "SIGSEGV", oomKilled: false });
});

test("tells a container that had no memory left from one that was killed", async () => {
  const { exit } = await sh("tail -c 100m /dev/zero; exit $?", { memoryBytes: 16 * 1024 * 1024 });
  expect(exit).toMatchObject({ exitCode: 137, signal: "SIGKILL", oomKilled: true });
});

test("limits processors and processes", async () => {
  const spec = host.spec(["sh", "-c", "while :; do :; done"], {
    cpuMillis: 250,
    options: { ...defaultOptions, pidsLimit: 7 },
  });
  const container = await runtime.start(spec, never);
  const quota = await firstReadable(["cpu/cpu.cfs_quota_us", "cpu.max"], spec.id);
  const pids = await firstReadable(["pids/pids.max", "pids.max"], spec.id);
  const usage = await container.usage();
  const weight = await readFile(`/proc/${container.pid}/oom_score_adj`, "utf8");
  await container.cleanup();
  await container.removeLog();
  expect(quota.split(" ")[0]).toBe("25000");
  expect(pids).toBe("7");
  expect(usage.memoryBytes).toBeGreaterThan(0);
  expect(usage.pids).toBe(1);
  // Nothing of the host's is ended in its place when the host has no memory left.
  expect(Number(weight)).toBe(900);
});

async function firstReadable(files: string[], id: string): Promise<string> {
  for (const file of files) {
    const [controller, name] = file.includes("/") ? file.split("/") : ["", file];
    const path = join("/sys/fs/cgroup", controller ?? "", host.cgroupParent, id, name ?? "");
    const text = await readFile(path, "utf8").catch(() => undefined);
    if (text !== undefined) return text.trim();
  }
  throw new Error(`none of ${files}`);
}

test("runs the entrypoint with the image's arguments, which a command replaces", async () => {
  const config = withConfig({ Entrypoint: ["echo", "from"], Cmd: ["the", "image"] });
  expect((await runToEnd({ ...host.spec([]), ...config })).output).toBe("from the image\n");
  expect((await runToEnd({ ...host.spec(["us"]), ...config })).output).toBe("from us\n");
});

test("merges environments: sane ones, the image's, the request's", async () => {
  const config = withConfig({ Env: ["PATH=/bin", "A=image", "B=image", "EMPTY=", "nonsense"] });
  const { output } = await sh("env", { ...config, env: { B: "ours", C: "a=b\nc" } });
  expect(output.split("\n")).toContainValues([
    "PATH=/bin",
    "A=image",
    "B=ours",
    "EMPTY=",
    "C=a=b",
    "c",
    "HOME=/root",
  ]);
  expect(output).toMatch(/^HOSTNAME=t-/m);
  expect(output).not.toContain("nonsense");
  expect(output).not.toContain("_OCI_SYNCPIPE");
});

test("runs as the image's user, found by name in its own passwd", async () => {
  const { output } = await sh("id; echo $HOME; cat /proc/self/status", withConfig({ User: "ann" }));
  expect(output).toContain("uid=1001(ann) gid=1002(ann) groups=20(wheel),29(audio),1002(ann)");
  expect(output).toContain("/home/ann\n");
  expect(output).toMatch(/CapEff:\s0+\n/);
});

test("runs as a number that no passwd knows, with a group by name", async () => {
  const { output } = await sh("id", withConfig({ User: "4321:video" }));
  expect(output).toContain("uid=4321 gid=44(video) groups=44(video)");
});

test("refuses a user or group that the image does not have", async () => {
  expect(await failureOf({ ...host.spec(["id"]), ...withConfig({ User: "eve" }) })).toMatchObject({
    code: "bad_user",
  });
  expect(await failureOf({ ...host.spec(["id"]), ...withConfig({ User: "ann:eve" }) })).toMatchObject({
    code: "bad_user",
    message: 'the group "eve" is not in the image\'s /etc/group',
  });
});

test("says which program the image does not have, and leaves nothing behind", async () => {
  expect(await failureOf(host.spec(["python", "-c", "1"]))).toMatchObject({
    code: "command_not_found",
    message: '"python" was not found on the $PATH of the image',
  });
  expect(await failureOf(host.spec(["/opt/tool"]))).toMatchObject({
    code: "command_not_found",
    message: '"/opt/tool" was not found in the image',
  });
  expect(await failureOf(host.spec(["/etc/passwd"]))).toMatchObject({ code: "permission" });
  expect(await failureOf(host.spec([]))).toMatchObject({ code: "nothing_to_run" });
});

test("refuses an image root that is not there", async () => {
  const failure = await failureOf(host.spec(["true"], { imageRoot: join(host.directory, "nowhere") }));
  expect(failure.code).toBe("overlay_failed");
});

test("refuses ids that could leave the state directory", async () => {
  for (const id of ["", "../x", "a/b", ".hidden", "a..b", "x".repeat(65)]) {
    expect(await failureOf(host.spec(["true"], { id }))).toMatchObject({ code: "bad_config" });
  }
});

test("refuses a second container of the same id, and keeps the first", async () => {
  const spec = host.spec(["sleep", "1000"]);
  const container = await runtime.start(spec, never);
  const other = await host.runtime();
  for (const who of [runtime, other]) {
    expect(await who.start(spec, never).catch((error: unknown) => error)).toMatchObject({ code: "exists" });
  }
  expect(container.alive()).toBe(true);
  await container.cleanup();
  await container.removeLog();
});

test("makes the working directory for the image's user, through links that stay inside", async () => {
  await symlink("/../../../tmp", join(host.imageRoot, "elsewhere"));
  const config = withConfig({ WorkingDir: "/elsewhere/deep/er", User: "ann", Volumes: { "/data": {} } });
  const { output } = await sh("pwd; touch here; ls; stat -c '%U %a' . /data; id -u", config);
  expect(output).toBe("/tmp/deep/er\nhere\nann 755\nroot 755\n1001\n");
  await rm(join(host.imageRoot, "elsewhere"));
});

test("refuses a working directory that is a file", async () => {
  const failure = await failureOf({ ...host.spec(["true"]), ...withConfig({ WorkingDir: "/etc/passwd/x" }) });
  expect(failure.code).toBe("bad_config");
});

test("keeps what a container writes out of the image", async () => {
  const { exit } = await sh("echo x > /etc/new && rm -f /etc/group; touch /root-file; ls /etc/new");
  expect(exit.exitCode).toBe(0);
  expect(await readdir(join(host.imageRoot, "etc"))).toEqual(["group", "passwd"]);
});

test("keeps the mode of the image's root directory, whatever our umask", async () => {
  const old = process.umask(0o077);
  await chmod(host.imageRoot, 0o755);
  const { output } = await sh(
    "stat -c %a / /work /etc/hosts; umask",
    withConfig({ WorkingDir: "/work", User: "ann" }),
  );
  process.umask(old);
  expect(output).toBe("755\n755\n644\n0022\n");
});

test("has loopback only without a network", async () => {
  const { output } = await sh(
    "ls /sys/class/net; ip addr; hostname; cat /etc/hosts /etc/hostname; cat /etc/resolv.conf",
  );
  expect(output.startsWith("lo\n")).toBe(true);
  expect(output).toContain("inet 127.0.0.1/8");
  expect(output).toContain("127.0.0.1\tlocalhost\n");
  expect(output).toMatch(/\nt-[0-9a-f]{10}\n/);
});

test("shares the host's network when it may", async () => {
  const { output } = await sh("ls /proc/1/ns -l; hostname; cat /etc/resolv.conf", { network: "host" });
  const own = (await readFile("/etc/resolv.conf", "utf8")).trim();
  expect(output).toContain(`\n${hostname()}\n`);
  expect(output.trim().endsWith(own)).toBe(true);
  expect(output).toContain(`net -> ${await readlink("/proc/self/ns/net")}`);
  expect(output).not.toContain(`pid -> ${await readlink("/proc/self/ns/pid")}`);
});

test("denies what the filter denies, with Docker's capabilities", async () => {
  const { output } = await sh(
    "mount -t tmpfs x /tmp 2>&1; cat /proc/self/status; cat /proc/kcore | head -c 1; ls /sys/firmware",
  );
  expect(output).toMatch(/permission denied|not permitted/i);
  expect(output).toContain("CapEff:\t00000000a80425fb");
  expect(output).toContain("Seccomp:\t2");
  expect(output).toContain("NoNewPrivs:\t0");
});

test("hands no descriptor of ours to the container or its monitor", async () => {
  const spec = host.spec(["sh", "-c", "ls /proc/self/fd; sleep 1000"]);
  const secret = await open(join(host.imageRoot, "etc/passwd"), "r");
  const container = await runtime.start(spec, never);
  const state = JSON.parse(
    await readFile(join(host.stateDir, "containers", spec.id, "state.json"), "utf8"),
  ) as {
    monitor: { pid: number };
  };
  const targets = await Promise.all(
    (await readdir(`/proc/${state.monitor.pid}/fd`)).map((fd) =>
      readlink(`/proc/${state.monitor.pid}/fd/${fd}`),
    ),
  );
  const environment = await readFile(`/proc/${state.monitor.pid}/environ`, "utf8");
  const session = (await readFile(`/proc/${state.monitor.pid}/stat`, "utf8")).split(") ")[1]?.split(" ")[3];
  await container.cleanup();
  await secret.close();
  expect(targets.filter((target) => target.includes("passwd"))).toEqual([]);
  expect(targets.length).toBeLessThan(25);
  expect(session).not.toBe((await readFile("/proc/self/stat", "utf8")).split(") ")[1]?.split(" ")[3]);
  expect(environment.split("\0").filter((entry) => !/^(PATH|LANG|_OCI_SYNCPIPE)=|^$/.test(entry))).toEqual(
    [],
  );
  expect(await textOf(runtime.logs(spec.id))).toMatch(/^0\n1\n2\n3\n?$/);
  await container.removeLog();
});

test("leaves nothing of a start that is aborted, at whatever step", async () => {
  const aborted = AbortSignal.abort(new Error("no"));
  expect(await failureOf(host.spec(["sleep", "1000"]), aborted)).toMatchObject({ code: "cancelled" });
  for (const stage of ["layer", "config.json", "pid", "state.json"]) {
    const spec = host.spec(["sleep", "1000"]);
    const controller = new AbortController();
    const home = join(host.stateDir, "containers", spec.id);
    const watching = abortWhen(join(home, stage), controller);
    const result = await runtime.start(spec, controller.signal).catch((error: unknown) => error);
    await watching;
    if ("cleanup" in (result as object)) {
      // The last step was under way: the start was complete.
      const container = result as Awaited<ReturnType<Runtime["start"]>>;
      await container.cleanup();
      await container.removeLog();
    } else expect(result).toMatchObject({ code: "cancelled" });
    expect(await host.leftovers()).toEqual([]);
  }
});

async function abortWhen(path: string, controller: AbortController): Promise<void> {
  while (!(await Bun.file(path).exists()) && !(await readdir(path).then(Boolean, () => false))) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  controller.abort();
}

test("starts several at once", async () => {
  const endings = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => sh(`echo ${n}; exit ${n}`)));
  expect(endings.map((ending) => ending.exit.exitCode)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(endings.map((ending) => ending.output)).toEqual(["1\n", "2\n", "3\n", "4\n", "5\n", "6\n"]);
});

test("reads an image whose files are links that lead out", async () => {
  const root = join(host.directory, "tricky");
  await mkdir(join(root, "etc"), { recursive: true });
  await symlink("/../../../../../../etc/shadow", join(root, "etc/passwd"));
  await writeFile(join(root, "etc/group"), "x".repeat(5 * 1024 * 1024));
  const failure = await failureOf({
    ...host.spec(["true"]),
    imageRoot: root,
    ...withConfig({ User: "root" }),
  });
  expect(failure.message).toContain("/etc/group in the image is larger than");
});
