import { createHash } from "node:crypto";
import { mkdir, open, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { errnoOf } from "../std/error.ts";
import { decodeTrace, encodeTrace, mergeTrace, type StartTrace, type Trace, traceLimits } from "./trace.ts";

/** Whose starts a trace is of. */
export interface TraceKey {
  readonly workspace: string;
  readonly manifestDigest: string;
  /** The command; empty: the image's own. */
  readonly argv: readonly string[];
}

/** A trace as people are shown it. */
export interface StoredTrace {
  /** First digits of the SHA-256 of the command. */
  readonly name: string;
  readonly trace: Trace;
}

/** Per workspace and image; beyond it the traces that were not used for longest go. */
const tracesMax = 64;
const namePattern = /^([0-9a-f]{32})-([0-9a-f]{32})\.json$/;

/**
 * Traces of starts, in a folder that several processes may use at once: `MANIFEST/WORKSPACE-COMMAND.json`, the last two as
 * hashes. They are hints: a damaged one counts as none and is replaced by the next start; of two that are written at
 * once one is lost.
 */
export class TraceStore {
  readonly #dir: string;

  /** @param dir made when the first trace is written */
  constructor(dir: string) {
    this.#dir = dir;
  }

  /** The trace of a command, if there is one that can be read. */
  async read(key: TraceKey): Promise<Trace | undefined> {
    return await readTrace(this.#path(key));
  }

  /** Adds a start. @throws NodeJS.ErrnoException when the disk refuses */
  async record(key: TraceKey, start: StartTrace): Promise<Trace> {
    const before = await this.read(key);
    const trace = mergeTrace(before, start, key.argv[0] ?? "", new Date());
    await mkdir(this.#folder(key.manifestDigest), { recursive: true });
    await writeFileAtomic(this.#path(key), encodeTrace(trace), 0o600);
    if (before === undefined) await this.#removeSurplus(key);
    return trace;
  }

  /** The traces of a workspace's image, the latest first. */
  async list(workspace: string, manifestDigest: string): Promise<StoredTrace[]> {
    const folder = this.#folder(manifestDigest);
    const traces: StoredTrace[] = [];
    for (const name of await namesOf(folder, hash(workspace))) {
      const trace = await readTrace(join(folder, name));
      if (trace !== undefined) traces.push({ name: name.slice(33, 45), trace });
    }
    return traces.sort((a, b) => b.trace.updatedAt.getTime() - a.trace.updatedAt.getTime());
  }

  /** Removes the traces of an image: a workspace's, or all. */
  async remove(manifestDigest: string, workspace?: string): Promise<void> {
    const folder = this.#folder(manifestDigest);
    if (workspace === undefined) return await rm(folder, { recursive: true, force: true });
    for (const name of await namesOf(folder, hash(workspace))) await rm(join(folder, name), { force: true });
  }

  /** Removes all traces of a workspace. */
  async removeWorkspace(workspace: string): Promise<void> {
    const own = hash(workspace);
    for (const folder of await entriesOf(this.#dir)) {
      const path = join(this.#dir, folder);
      for (const name of await namesOf(path, own)) await rm(join(path, name), { force: true });
    }
  }

  async #removeSurplus({ workspace, manifestDigest }: TraceKey): Promise<void> {
    const folder = this.#folder(manifestDigest);
    const names = await namesOf(folder, hash(workspace));
    if (names.length <= tracesMax) return;
    const times = await Promise.all(
      names.map(async (name) => {
        const found = await stat(join(folder, name)).catch(() => undefined);
        return { name, time: found?.mtimeMs ?? 0 };
      }),
    );
    times.sort((a, b) => b.time - a.time);
    for (const { name } of times.slice(tracesMax)) await rm(join(folder, name), { force: true });
  }

  #path({ workspace, manifestDigest, argv }: TraceKey): string {
    const name = `${hash(workspace)}-${hash(JSON.stringify(argv))}.json`;
    return join(this.#folder(manifestDigest), name);
  }

  #folder(manifestDigest: string): string {
    return join(this.#dir, hash(manifestDigest));
  }
}

async function readTrace(path: string): Promise<Trace | undefined> {
  try {
    const file = await open(path);
    try {
      if ((await file.stat()).size > traceLimits.fileBytes) return undefined;
      return decodeTrace(await file.readFile("utf8"));
    } finally {
      await file.close();
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return undefined;
  }
}

async function namesOf(folder: string, workspaceHash: string): Promise<string[]> {
  const names = await entriesOf(folder);
  return names.filter((name) => namePattern.exec(name)?.[1] === workspaceHash);
}

async function entriesOf(folder: string): Promise<string[]> {
  return await readdir(folder).catch((error) => {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  });
}

function hash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}
