import { statfs } from "node:fs/promises";
import { release } from "node:os";
const probeTransport = async () => ({ file: true, loop: true, fuse: true, kernel: release(), detail: [] as string[] });
import { Cgroups } from "../runtime/cgroups.ts";
import { findProgram } from "../runtime/oci-runtime.ts";
import { messageOf } from "../std/error.ts";
import { formatSize } from "../std/size.ts";
import { tryRun } from "../std/spawn.ts";
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
    const findings = [
      user(),
      ...(await mounting()),
      await program("runc", ["--version"], "containers run by it"),
      await program("conmon", ["--version"], "holds each container's output and exit code"),
      await cgroups(),
      await disk(flags.dataDir),
      restarts(),
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

/** Mounts a small image in both ways, for real. */
async function mounting(): Promise<Finding[]> {
  const probe = await probeTransport();
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

async function program(name: string, argv: readonly string[], purpose: string): Promise<Finding> {
  try {
    const { stdout } = await tryRun([findProgram(name), ...argv], { timeoutMs: 5_000 });
    return { check: name, state: "ok", found: stdout.split("\n")[0] ?? name };
  } catch (error) {
    return {
      check: name,
      state: "bad",
      found: `${messageOf(error)} (${purpose})`,
      next: `apt-get install ${name}`,
    };
  }
}

async function cgroups(): Promise<Finding> {
  const { mode, controllers } = await Cgroups.detect();
  const missing = ["cpu", "memory", "pids"].filter((name) => !controllers.includes(name));
  const found = `${mode}: ${controllers.join(", ")}`;
  if (missing.length === 0) {
    const note = mode === "hybrid" ? "; crun refuses hybrid hosts, runc runs" : "";
    return { check: "cgroups", state: "ok", found: found + note };
  }
  return {
    check: "cgroups",
    state: "limited",
    found: `${found}; without ${missing.join(", ")}`,
    next: "Limits of these kinds cannot be set for containers on this host.",
  };
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
function restarts(): Finding {
  return {
    check: "restart",
    state: "limited",
    found:
      "containers of completely fetched images survive a crash of the worker; others are ended and reported",
    next: "Run with --eager what must survive.",
  };
}
