import { randomUUID } from "node:crypto";
import { renameSync, rmSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../std/atomic-file.ts";
import { errnoOf, messageOf } from "../../std/error.ts";
import { logger } from "../../std/log.ts";
import { waitFor } from "../../std/wait.ts";
import { RuntimeError } from "../error.ts";
import { bootId } from "../process-identity.ts";
import { type FetchCodePiece, fetchCode } from "./fetch.ts";

const log = logger("worker");
const safeName = /^[A-Za-z0-9][A-Za-z0-9-]{0,63}$/;
const digestPattern = /^[0-9a-f]{64}$/;
const folders = ["new", "trees", "users"] as const;

export interface CodeCacheOptions {
  /** Nobody but root writes there. */
  readonly dir: string;
  /** Of trees that nothing uses. */
  readonly quotaBytes: number;
  readonly unpackedBytesMax: number;
  readonly fetchPiece: FetchCodePiece;
}

const treeFacts = z.object({ bootId: z.string(), diskBytes: z.number().int().nonnegative() });
const useFacts = z.object({
  workspaceId: z.string().regex(safeName),
  sha256: z.string().regex(digestPattern),
});

interface Tree {
  /** `WORKSPACE/SHA256`. */
  readonly key: string;
  readonly diskBytes: number;
  /** Ids of containers. */
  readonly users: Set<string>;
  usedMs: number;
}

/** A tree that is on its way, and the containers that wait for it. */
interface Fetching {
  readonly done: Promise<void>;
  readonly abort: AbortController;
  readonly waiting: Set<string>;
}

/**
 * Uploaded code, unpacked: `trees/WORKSPACE/SHA256/` with `SHA256.json` beside it, complete or not there. Which container
 * uses what stands in `users/CONTAINER`, for the process after this one. A workspace gets only what was fetched for it.
 *
 * Nothing is synced to the disk: after another boot of the host all is fetched anew.
 */
export class CodeCache {
  readonly #options: CodeCacheOptions;
  readonly #trees: Map<string, Tree>;
  readonly #fetching = new Map<string, Fetching>();
  /** Until it is known which containers are left, nothing goes. */
  #adopting = true;

  private constructor(options: CodeCacheOptions, trees: Map<string, Tree>) {
    this.#options = options;
    this.#trees = trees;
  }

  /** Finds what the process before this one has left, and clears what it had half made. */
  static async open(options: CodeCacheOptions): Promise<CodeCache> {
    const { dir } = options;
    await rm(join(dir, "new"), { recursive: true, force: true });
    // Containers whose root is no root of the host's go through these.
    for (const name of folders) await mkdir(join(dir, name), { recursive: true, mode: 0o755 });
    const trees = await findTrees(join(dir, "trees"));
    for (const [containerId, key] of await findUses(join(dir, "users")))
      trees.get(key)?.users.add(containerId);
    return new CodeCache(options, trees);
  }

  /** Whether any container uses any code. */
  get inUse(): boolean {
    return [...this.#trees.values()].some((tree) => tree.users.size > 0);
  }

  /** Says which containers are left: what others used is free. */
  async endAdoption(containerIds: ReadonlySet<string>): Promise<void> {
    for (const tree of this.#trees.values())
      for (const id of tree.users) if (!containerIds.has(id)) tree.users.delete(id);
    for (const id of await readdir(join(this.#options.dir, "users")))
      if (!containerIds.has(id)) await rm(this.#usePath(id), { force: true });
    this.#adopting = false;
    await this.#shrink(this.#options.quotaBytes);
  }

  /**
   * The tree of a container's code, fetched and unpacked unless it is here; it stays until {@link release}. Several that
   * want the same wait for one.
   * @throws RuntimeError `code`; the signal's reason
   */
  async acquire(
    { containerId, workspaceId }: { readonly containerId: string; readonly workspaceId: string },
    sha256: string,
    signal: AbortSignal,
  ): Promise<string> {
    if (!safeName.test(workspaceId) || !digestPattern.test(sha256))
      throw new RuntimeError("code", "the digest of the code or the id of its workspace is not one");
    const key = `${workspaceId}/${sha256}`;
    // Whoever fetches it may just not have the right to any more: then the next one does.
    while (!this.#use(key, containerId)) await this.#join(key, containerId, sha256, signal);
    try {
      await writeFileAtomic(this.#usePath(containerId), JSON.stringify({ workspaceId, sha256 }), 0o600);
    } catch (error) {
      await this.release(containerId);
      throw unusable(error);
    }
    return this.#treePath(key);
  }

  /** A container uses its code no more, if it had any. Safe to repeat. */
  async release(containerId: string): Promise<void> {
    const now = new Date();
    const used = [...this.#trees.values()].filter((tree) => tree.users.delete(containerId));
    if (used.length === 0) return;
    for (const tree of used) {
      tree.usedMs = now.getTime();
      await utimes(`${this.#treePath(tree.key)}.json`, now, now).catch(() => undefined);
    }
    await rm(this.#usePath(containerId), { force: true });
    await this.#shrink(this.#options.quotaBytes);
  }

  #use(key: string, containerId: string): boolean {
    return this.#trees.get(key)?.users.add(containerId) !== undefined;
  }

  /** Waits for a tree, or fetches it. What fails for another says nothing. */
  async #join(key: string, containerId: string, sha256: string, signal: AbortSignal): Promise<void> {
    const running = this.#fetching.get(key);
    const fetching = running ?? this.#begin(key, containerId, sha256);
    fetching.waiting.add(containerId);
    try {
      await waitFor(fetching.done, signal);
    } catch (error) {
      if (signal.aborted) this.#trees.get(key)?.users.delete(containerId);
      if (running === undefined || signal.aborted) throw error;
    } finally {
      fetching.waiting.delete(containerId);
      if (fetching.waiting.size === 0) fetching.abort.abort(new Error("nobody waits for this code any more"));
    }
  }

  #begin(key: string, containerId: string, sha256: string): Fetching {
    const abort = new AbortController();
    const waiting = new Set<string>();
    const done = this.#fetch(key, containerId, sha256, abort.signal, waiting).finally(() =>
      this.#fetching.delete(key),
    );
    done.catch(() => undefined);
    const fetching = { done, abort, waiting };
    this.#fetching.set(key, fetching);
    return fetching;
  }

  async #fetch(
    key: string,
    containerId: string,
    sha256: string,
    signal: AbortSignal,
    waiting: ReadonlySet<string>,
  ): Promise<void> {
    const beganMs = performance.now();
    const { fetchPiece, unpackedBytesMax } = this.#options;
    const folder = join(this.#options.dir, "new", randomUUID());
    try {
      await mkdir(folder, { mode: 0o755 });
      const wanted = { containerId, sha256, archivePath: `${folder}.archive`, folder, unpackedBytesMax };
      const { diskBytes, entries } = await fetchCode(fetchPiece, wanted, signal);
      const path = this.#treePath(key);
      await writeFileAtomic(`${path}.json`, JSON.stringify({ bootId: await bootId(), diskBytes }));
      await rename(folder, path);
      // Used before it can be found to be unused.
      this.#trees.set(key, { key, diskBytes, users: new Set(waiting), usedMs: Date.now() });
      log.info("code fetched", { sha256, entries, ms: Math.round(performance.now() - beganMs) });
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      const madeRoom = errnoOf(error) === "ENOSPC" && (await this.#shrink(0));
      if (!madeRoom) throw unusable(error);
      await this.#fetch(key, containerId, sha256, signal, waiting);
    }
  }

  /** Removes what nothing uses, the least lately used first, until there is no more of it than that. False: there was nothing. */
  async #shrink(bytesMax: number): Promise<boolean> {
    if (this.#adopting) return false;
    const unused = [...this.#trees.values()]
      .filter((tree) => tree.users.size === 0)
      .sort((one, other) => other.usedMs - one.usedMs);
    let bytes = 0;
    const gone: string[] = [];
    for (const { key, diskBytes } of unused) {
      bytes += diskBytes;
      if (bytes <= bytesMax) continue;
      const path = this.#treePath(key);
      const aside = join(this.#options.dir, "new", randomUUID());
      try {
        // All in one go: whoever comes next finds all of it or nothing.
        renameSync(path, aside);
        rmSync(`${path}.json`, { force: true });
        this.#trees.delete(key);
        gone.push(aside);
      } catch (error) {
        log.warn("code that nothing uses could not be removed", { error: messageOf(error) });
      }
    }
    for (const path of gone) await rm(path, { recursive: true, force: true });
    return gone.length > 0;
  }

  #usePath(containerId: string): string {
    return join(this.#options.dir, "users", containerId);
  }

  #treePath(key: string): string {
    return join(this.#options.dir, "trees", key);
  }
}

/** What is wrong with code beside what is said of it already. */
function unusable(error: unknown): unknown {
  const errno = errnoOf(error);
  if (error instanceof RuntimeError || errno === undefined || !/^E[A-Z0-9]+$/.test(errno)) return error;
  const why = errno === "ENOSPC" || errno === "EDQUOT" ? "the worker's disk has no space left" : errno;
  return new RuntimeError("code", `the code could not be unpacked on the worker: ${why}`, {
    next: "Make room below the worker's data_dir, or let another worker have it.",
    cause: error,
  });
}

/** The complete trees of this boot; what else is there goes. */
async function findTrees(root: string): Promise<Map<string, Tree>> {
  const trees = new Map<string, Tree>();
  for (const workspace of await readdir(root)) {
    const folder = join(root, workspace);
    const names = new Set(await readdir(folder));
    for (const name of names) {
      const sha256 = name.replace(/\.json$/, "");
      const tree = names.has(sha256) ? await readTree(folder, `${workspace}/${sha256}`, sha256) : undefined;
      if (tree === undefined) await rm(join(folder, name), { recursive: true, force: true });
      else trees.set(tree.key, tree);
    }
  }
  return trees;
}

async function readTree(folder: string, key: string, sha256: string): Promise<Tree | undefined> {
  const path = join(folder, `${sha256}.json`);
  try {
    const facts = treeFacts.parse(JSON.parse(await readFile(path, "utf8")));
    if (facts.bootId !== (await bootId())) return undefined;
    return { key, diskBytes: facts.diskBytes, users: new Set(), usedMs: (await stat(path)).mtimeMs };
  } catch {
    return undefined;
  }
}

/** Container → key of the tree that it uses. */
async function findUses(folder: string): Promise<Map<string, string>> {
  const uses = new Map<string, string>();
  for (const containerId of await readdir(folder)) {
    try {
      const { workspaceId, sha256 } = useFacts.parse(
        JSON.parse(await readFile(join(folder, containerId), "utf8")),
      );
      uses.set(containerId, `${workspaceId}/${sha256}`);
    } catch {
      await rm(join(folder, containerId), { recursive: true, force: true });
    }
  }
  return uses;
}
