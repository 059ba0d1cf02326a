import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { makeTar, SeededRandom } from "../../index/tar.test-kit.ts";
import { tmpfsMount, umount } from "../../native/linux.ts";
import { sleep } from "../../std/wait.ts";
import { RuntimeError } from "../error.ts";
import { CodeCache } from "./cache.ts";

const pieceBytes = 1000;
let dir: string;
let archives: Map<string, Buffer>;
/** `CONTAINER POSITION` of each piece that was asked for. */
let asked: string[];
/** What happens before a piece is given. */
let before: (containerId: string, signal: AbortSignal) => Promise<void>;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-code-cache-"));
  archives = new Map();
  asked = [];
  before = async () => undefined;
});
afterEach(async () => {
  await rm(dir, { recursive: true });
});

const noise = (seed: number, bytes: number) => new SeededRandom(seed).bytes(bytes).toString("latin1");

/** Code with a text in `app.py`; its digest. */
function upload(text: string): string {
  const archive = gzipSync(makeTar([{ name: "pkg/app.py", data: Buffer.from(text, "latin1") }]));
  const sha256 = createHash("sha256").update(archive).digest("hex");
  archives.set(sha256, archive);
  return sha256;
}

const open = (quotaBytes = 2 ** 20, where = dir) =>
  CodeCache.open({
    dir: where,
    quotaBytes,
    unpackedBytesMax: 2 ** 20,
    fetchPiece: async (containerId, sha256, position, signal) => {
      asked.push(`${containerId} ${position}`);
      await before(containerId, signal);
      const archive = archives.get(sha256);
      if (archive === undefined) throw new RuntimeError("code", "no such code");
      const data = archive.subarray(position * pieceBytes, (position + 1) * pieceBytes);
      return { data, pieces: Math.ceil(archive.length / pieceBytes) };
    },
  });
async function fresh(quotaBytes?: number, where?: string): Promise<CodeCache> {
  const cache = await open(quotaBytes, where);
  await cache.endAdoption(new Set());
  return cache;
}
const never = new AbortController().signal;
const acquire = (cache: CodeCache, containerId: string, sha256: string, signal = never, workspaceId = "w1") =>
  cache.acquire({ containerId, workspaceId }, sha256, signal);
const text = (path: string) => readFile(join(path, "pkg/app.py"), "latin1");

test("several containers that want the same code at once share one fetch; another workspace makes its own", async () => {
  const cache = await fresh();
  const one = noise(1, 5000);
  const sha256 = upload(one);
  const paths = await Promise.all(["c1", "c2", "c3"].map((id) => acquire(cache, id, sha256)));
  expect(new Set(paths).size).toBe(1);
  expect(await text(paths[0]!)).toBe(one);
  expect(new Set(asked.map((each) => each.split(" ")[0]))).toEqual(new Set(["c1"]));
  const calls = asked.length;
  expect(await acquire(cache, "c4", sha256)).toBe(paths[0]!);
  expect(asked.length).toBe(calls);
  expect(await acquire(cache, "c5", sha256, never, "w2")).not.toBe(paths[0]!);
  expect(asked.length).toBeGreaterThan(calls);
});

test("when the container that fetches is refused, the next one fetches; when it leaves, the others go on", async () => {
  const cache = await fresh();
  const sha256 = upload("x");
  before = async (containerId) => {
    await sleep(1);
    if (containerId === "c1") throw new RuntimeError("code", "c1 has ended");
  };
  const [first, second] = await Promise.allSettled(["c1", "c2"].map((id) => acquire(cache, id, sha256)));
  expect(first).toMatchObject({ status: "rejected", reason: { code: "code" } });
  expect(second?.status).toBe("fulfilled");

  const other = upload("y");
  const [given, leaving] = [Promise.withResolvers<void>(), new AbortController()];
  before = () => given.promise;
  const [left, stays] = [acquire(cache, "c3", other, leaving.signal), acquire(cache, "c4", other)];
  leaving.abort(new Error("c3 was stopped"));
  await expect(left).rejects.toThrow("c3 was stopped");
  given.resolve();
  expect(await text(await stays)).toBe("y");
});

test("a fetch that nobody waits for any more ends, and leaves nothing", async () => {
  const cache = await fresh();
  const sha256 = upload("x");
  const [begun, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  before = (_, signal) =>
    new Promise((_resolve, reject) => {
      begun.resolve();
      signal.addEventListener("abort", () => {
        reject(signal.reason);
        ended.resolve();
      });
    });
  const leaving = new AbortController();
  const waiting = acquire(cache, "c1", sha256, leaving.signal);
  await begun.promise;
  leaving.abort(new Error("stopped"));
  await expect(waiting).rejects.toThrow("stopped");
  await ended.promise;
  before = async () => undefined;
  expect(await text(await acquire(cache, "c2", sha256))).toBe("x");
});

test("code that differs from its digest, or is hostile, is not kept", async () => {
  const cache = await fresh();
  const sha256 = upload("x");
  archives.set(sha256, archives.get(upload("y"))!);
  await expect(acquire(cache, "c1", sha256)).rejects.toThrow("its digest differs");
  const hostile = gzipSync(makeTar([{ name: "../x", data: Buffer.from("x") }]));
  const digest = createHash("sha256").update(hostile).digest("hex");
  archives.set(digest, hostile);
  await expect(acquire(cache, "c1", digest)).rejects.toThrow("`..` in its path");
  await expect(acquire(cache, "c1", "../../etc")).rejects.toThrow("is not one");
  await expect(acquire(cache, "c1", sha256, never, "../w")).rejects.toThrow("is not one");
  expect(await readdir(dir, { recursive: true })).toEqual(expect.arrayContaining(["new", "trees", "users"]));
  expect((await readdir(dir, { recursive: true })).length).toBe(3);
});

test("a disk that is full is told, what nothing uses there makes room, and nothing torn is left", async () => {
  const disk = join(dir, "disk");
  await mkdir(disk);
  await tmpfsMount(disk, { sizeBytes: 1024 ** 2, mode: 0o700 });
  try {
    const cache = await fresh(2 ** 20, disk);
    const [first, second] = [1, 2].map((seed) => upload(noise(seed, 600_000))) as [string, string];
    const path = await acquire(cache, "c1", first);
    await expect(acquire(cache, "c2", second)).rejects.toMatchObject({
      code: "code",
      message: expect.stringContaining("no space left"),
    });
    expect(existsSync(path)).toBe(true);
    expect(await readdir(join(disk, "new"))).toEqual([]);
    await cache.release("c1");
    expect((await acquire(cache, "c3", second)).endsWith(second)).toBe(true);
    expect(existsSync(path)).toBe(false);
  } finally {
    await umount(disk);
  }
});

test("what is unused goes when there is more of it than the quota, the least lately used first; what is used stays", async () => {
  // A tree with one small file counts 8 KiB.
  const cache = await fresh(2 * 8192);
  const paths: string[] = [];
  for (const id of ["c1", "c2", "c3", "c4"]) paths.push(await acquire(cache, id, upload(id)));
  expect(paths.map((path) => existsSync(path))).toEqual([true, true, true, true]);
  for (const id of ["c2", "c1", "c1"]) {
    await cache.release(id);
    await sleep(2);
  }
  expect(paths.map((path) => existsSync(path))).toEqual([true, true, true, true]);
  await cache.release("c3");
  expect(paths.map((path) => existsSync(path))).toEqual([true, false, true, true]);
  expect(existsSync(`${paths[1]}.json`)).toBe(false);
  expect(await text(await acquire(cache, "c5", upload("c2")))).toBe("c2");
  expect(await readdir(join(dir, "new"))).toEqual([]);
});

test("the process after this one finds what is complete and what living containers use, and clears the rest", async () => {
  const cache = await fresh();
  const [used, unused] = [
    await acquire(cache, "c1", upload("used")),
    await acquire(cache, "c2", upload("unused")),
  ];
  const [workspace, torn] = [join(dir, "trees/w1"), "a".repeat(64)];
  await mkdir(join(dir, "new/half"), { recursive: true });
  await mkdir(join(workspace, torn));
  await writeFile(join(workspace, `${"b".repeat(64)}.json`), "{}");
  await writeFile(join(dir, "users/c9"), "nonsense");
  const calls = asked.length;
  const after = await open(0);
  expect(await readdir(join(dir, "new"))).toEqual([]);
  // Whoever ends before all are adopted takes nothing away from them.
  await after.release("c2");
  expect(existsSync(unused)).toBe(true);
  await after.endAdoption(new Set(["c1"]));
  expect([existsSync(used), existsSync(unused)]).toEqual([true, false]);
  expect((await readdir(workspace)).length).toBe(2);
  expect(await readdir(join(dir, "users"))).toEqual(["c1"]);
  expect(await acquire(after, "c3", used.split("/").at(-1)!)).toBe(used);
  expect(asked.length).toBe(calls);
  // Of another boot of the host nothing is known to be on the disk whole.
  await writeFile(`${used}.json`, JSON.stringify({ bootId: "another", diskBytes: 1 }));
  await open();
  expect(existsSync(used)).toBe(false);
});
