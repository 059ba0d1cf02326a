import { readFile, readlink, realpath, rm } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../std/error.ts";
import { sleep } from "../std/wait.ts";
import { DbError } from "./error.ts";

const orphanTimeoutMs = 15_000;

/** `postmaster.pid` as the server writes it (PostgreSQL, miscadmin.h): line 1 its pid, line 8 its status. */
async function readPidFile(dataPath: string): Promise<{ pid: number; ready: boolean } | undefined> {
  try {
    const lines = (await readFile(join(dataPath, "postmaster.pid"), "latin1")).split("\n");
    return { pid: Number.parseInt(lines[0] ?? "", 10), ready: (lines[7] ?? "").trim() === "ready" };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Whether the server with this pid accepts connections by now. */
export async function isReady(dataPath: string, pid: number): Promise<boolean> {
  const file = await readPidFile(dataPath);
  return file !== undefined && file.pid === pid && file.ready;
}

/**
 * Makes way for a server: a pid file whose process is gone (or is another program by now) is removed. A server that
 * runs without its parent is ending: it is waited for. One whose parent lives is another node's: DbError `unavailable`.
 */
export async function clearPredecessor(dataPath: string, signal: AbortSignal): Promise<void> {
  for (const started = performance.now(); ; ) {
    const file = await readPidFile(dataPath);
    if (file === undefined) return;
    if (!(await isServerOf(file.pid, dataPath))) {
      await rm(join(dataPath, "postmaster.pid"), { force: true });
      return;
    }
    if ((await hasOwner(file.pid)) || performance.now() - started > orphanTimeoutMs) {
      throw new DbError("unavailable", `the database in ${dataPath} is in use by process ${file.pid}`, {
        next: "Stop the other node, or give this one a data directory of its own.",
      });
    }
    await sleep(20, signal);
  }
}

async function isServerOf(pid: number, dataPath: string): Promise<boolean> {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    return (await readlink(`/proc/${pid}/cwd`)) === (await realpath(dataPath));
  } catch {
    return false;
  }
}

async function hasOwner(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
  const parent = Number(/^PPid:\s*(\d+)$/m.exec(status)?.[1] ?? 1);
  if (parent <= 1) return false;
  // A subreaper (systemd --user, a container's init) also adopts orphans: only a parent that is a node is an owner.
  const name = await readlink(`/proc/${parent}/exe`).catch(() => "");
  return /\/(bun|oci-node)[^/]*$/.test(name);
}
