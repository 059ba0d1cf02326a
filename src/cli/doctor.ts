import { mkdtemp, rm, statfs } from "node:fs/promises";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig } from "../config.ts";
import { probeTransport, type TransportProbe } from "../mount/probe.ts";
import { userNamespaceProblem } from "../runtime/files/user-namespace.ts";
import { layerProblem } from "../runtime/files/writable-layer.ts";
import type { RuntimeName } from "../runtime/oci-runtime.ts";
import { probeRuntime } from "../runtime/probe.ts";
import { messageOf } from "../std/error.ts";
import { formatSize } from "../std/size.ts";
import { SpawnError, tryRun } from "../std/spawn.ts";
import { version } from "../std/version.ts";
import { command } from "./action.ts";
import { checkConfig } from "./doctor-config.ts";
import { checkKeys } from "./doctor-keys.ts";
import { checkNetwork } from "./doctor-network.ts";
import type { Finding } from "./finding.ts";
import { printJson, printLine } from "./output.ts";

const lowSpaceBytes = 2 * 1024 ** 3;

export const doctor = command<{ json: boolean; dataDir?: string; config?: string }>({
  brief: "Tell what works on this host, what does not, and what to do",
  flags: {
    config: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Configuration file (TOML): its keys, proxies, identities and issuer are tried as well",
      placeholder: "FILE",
    },
    dataDir: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Data folder whose disk and key are looked at (default /var/lib/oci-node)",
      placeholder: "DIR",
    },
  },
  async run(flags) {
    const probe = await probeTransport();
    const name = runtimeOf(flags.config);
    const findings = [
      user(),
      ...mounting(probe),
      ...(await runtime(name)),
      await users(name),
      ...(await checkNetwork(flags.config)),
      await layers(),
      await disk(flags.dataDir ?? "/var/lib/oci-node"),
      restarts(probe),
      ...(await clock()),
      ...(await checkKeys(flags)),
      ...(flags.config === undefined ? [] : await checkConfig(flags.config)),
    ];
    if (flags.json) printJson({ version, kernel: release(), findings });
    else {
      const width = Math.max(...findings.map(({ check }) => check.length));
      for (const finding of findings) printFinding(finding, width);
    }
    return findings.some(({ state }) => state === "bad") ? 1 : 0;
  },
});

function printFinding({ check, state, found, next }: Finding, width: number): void {
  const mark = { ok: "ok      ", limited: "limited ", bad: "BAD     " }[state];
  printLine(`${mark} ${check.padEnd(width)} ${found}`);
  if (next !== undefined) printLine(`${" ".repeat(10 + width)}→ ${next}`);
}

function user(): Finding {
  return process.getuid?.() === 0
    ? { check: "user", state: "ok", found: "root" }
    : {
        check: "user",
        state: "bad",
        found: "not root: mounts and containers need it",
        next: "Run it with sudo.",
      };
}

/** What came of mounting a small image in both ways, for real. */
function mounting(probe: TransportProbe): Finding[] {
  const fuse: Finding = probe.fuse
    ? { check: "fuse", state: "ok", found: "a FUSE file system can be mounted" }
    : {
        check: "fuse",
        state: "bad",
        found: `FUSE does not work: ${probe.detail.join("; ")}`,
        next: "Load it with `modprobe fuse`, and see that /dev/fuse is there.",
      };
  if (probe.file) {
    return [
      fuse,
      {
        check: "erofs",
        state: "ok",
        found: `by file (Linux ${probe.kernel}); loop devices ${probe.loop ? "work too" : "do not work"}`,
      },
    ];
  }
  if (probe.loop) {
    return [
      fuse,
      {
        check: "erofs",
        state: "ok",
        found: `over loop devices (Linux ${probe.kernel}; by file from 6.12 on)`,
      },
    ];
  }
  const next = "Load it with `modprobe erofs` (Linux 5.16 or later is needed).";
  return [
    fuse,
    { check: "erofs", state: "bad", found: `EROFS does not work: ${probe.detail.join("; ")}`, next },
  ];
}

/** The runtime that the configuration names; a broken configuration has a finding of its own. */
function runtimeOf(config: string | undefined): RuntimeName {
  if (config === undefined) return "runc";
  try {
    return readConfig(config).worker.runtime;
  } catch {
    return "runc";
  }
}

/** Whether containers get user namespaces: tried for real. */
async function users(name: RuntimeName): Promise<Finding> {
  const directory = await mkdtemp(join(tmpdir(), "oci-node-users-"));
  try {
    const problem = await userNamespaceProblem(name, directory);
    const check = "users";
    if (problem === undefined)
      return { check, state: "ok", found: "each container gets a user namespace of its own" };
    const found = `containers get no user namespaces, so their root is root here as well: ${problem}`;
    return { check, state: "limited", found, next: "Use Linux 5.19 or later, and runc." };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Whether what containers write can be limited: tried for real. */
async function layers(): Promise<Finding> {
  const problem = await layerProblem(tmpdir());
  const check = "layers";
  if (problem === undefined) return { check, state: "ok", found: "what containers write can be limited" };
  const found = `containers can fill the disk: ${problem}`;
  return { check, state: "limited", found, next: "apt-get install e2fsprogs, and load loop devices." };
}

async function runtime(name: RuntimeName): Promise<Finding[]> {
  const probe = await probeRuntime(name);
  const programs = [probe.runtime, probe.conmon].map(
    ({ name, version: found }): Finding =>
      found === undefined
        ? {
            check: name,
            state: "bad",
            found: "not installed or does not run",
            next: `apt-get install ${name}`,
          }
        : { check: name, state: "ok", found },
  );
  const limits = probe.warnings;
  const others = probe.problems.filter((problem) => !problem.includes("not installed"));
  const state = others.length > 0 ? "bad" : limits.length > 0 ? "limited" : "ok";
  const found = [`${probe.cgroupMode}: ${probe.controllers.join(", ")}`, ...others, ...limits].join("; ");
  return [...programs, { check: "cgroups", state, found }];
}

async function disk(dataDir: string): Promise<Finding> {
  for (let folder = dataDir; ; folder = folder.replace(/\/[^/]*$/, "") || "/") {
    try {
      const { bavail, bsize } = await statfs(folder);
      const free = bavail * bsize;
      const found = `${formatSize(free)} free for ${dataDir}`;
      if (free >= lowSpaceBytes) return { check: "cache", state: "ok", found };
      return {
        check: "cache",
        state: "limited",
        found,
        next: "Free some space, or choose another --data-dir.",
      };
    } catch (error) {
      if (folder === "/") return { check: "cache", state: "bad", found: messageOf(error) };
    }
  }
}

/** Whether something keeps the clock right, where systemd knows. What clouds sign, and are sent signed, is good for minutes. */
async function clock(): Promise<Finding[]> {
  try {
    const { stdout } = await tryRun(["timedatectl", "show", "-p", "NTPSynchronized", "--value"], {
      timeoutMs: 5_000,
    });
    const check = "clock";
    if (stdout.trim() === "yes") return [{ check, state: "ok", found: "kept right by NTP" }];
    if (stdout.trim() !== "no") return [];
    return [
      {
        check,
        state: "limited",
        found: "not kept right by NTP: some minutes off, and clouds refuse signatures and tokens",
        next: "Run chrony or systemd-timesyncd, unless the hypervisor keeps it right.",
      },
    ];
  } catch (error) {
    if (error instanceof SpawnError) return [];
    throw error;
  }
}

/** What happens to running containers when the worker's process dies. */
function restarts(probe: TransportProbe): Finding {
  return probe.resend
    ? { check: "restart", state: "ok", found: "containers survive a crash or an upgrade of the worker" }
    : {
        check: "restart",
        state: "limited",
        found:
          "containers of completely fetched images survive a crash of the worker; others are ended and reported",
        next: "Run with --eager what must survive, or use Linux 6.9 or later.",
      };
}
