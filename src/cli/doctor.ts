import { statfs } from "node:fs/promises";
import { release } from "node:os";

import { probeTransport, type TransportProbe } from "../mount/probe.ts";
import { probeRuntime } from "../runtime/probe.ts";
import { messageOf } from "../std/error.ts";
import { formatSize } from "../std/size.ts";
import { version } from "../std/version.ts";
import { command } from "./action.ts";
import { printJson, printLine } from "./output.ts";

/** One thing that a host needs, or that is good to know. */
interface Finding {
  readonly check: string;
  /** `bad`: containers or mounts cannot work; `limited`: something falls short. */
  readonly state: "ok" | "limited" | "bad";
  readonly found: string;
  readonly next?: string;
}

const lowSpaceBytes = 2 * 1024 ** 3;

export const doctor = command<{ json: boolean; dataDir: string }>({
  brief: "Tell what works on this host, what does not, and what to do",
  flags: {
    dataDir: {
      kind: "parsed",
      parse: String,
      default: "/var/lib/oci-node",
      brief: "Data folder whose disk is looked at",
      placeholder: "DIR",
    },
  },
  async run(flags) {
    const probe = await probeTransport();
    const findings = [
      user(),
      ...mounting(probe),
      ...(await runtime()),
      await disk(flags.dataDir),
      restarts(probe),
    ];
    if (flags.json) printJson({ version, kernel: release(), findings });
    else for (const finding of findings) printFinding(finding);
    return findings.some(({ state }) => state === "bad") ? 1 : 0;
  },
});

function printFinding({ check, state, found, next }: Finding): void {
  const mark = { ok: "ok      ", limited: "limited ", bad: "BAD     " }[state];
  printLine(`${mark} ${check.padEnd(12)} ${found}`);
  if (next !== undefined) printLine(`${" ".repeat(22)}→ ${next}`);
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

async function runtime(): Promise<Finding[]> {
  const probe = await probeRuntime("runc");
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
