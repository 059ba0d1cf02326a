/**
 * A process for tests to kill: mounts an image of the room's store lazily, or goes on serving the one that a process
 * before it left with the holder, prints where, and serves what is in the cache until it dies. What is not, hangs.
 */
import { join } from "node:path";
import { IndexStore } from "../index/store.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { LazyMounts } from "./lazy-mount.ts";
import type { TransportChoice } from "./transport.ts";

const [dir = "", patience = "0", transport = "auto"] = process.argv.slice(2);
const store = await IndexStore.open(join(dir, "index"));
const mounts = await LazyMounts.create({
  stateDir: join(dir, "state"),
  cacheDir: join(dir, "cache"),
  transport: transport as TransportChoice,
  handover:
    patience === "0"
      ? undefined
      : { patienceMs: Number(patience), openIndex: (digest, sha256) => store.openImage(digest, sha256) },
});
const source: BlobSource = {
  read: () => {
    process.stdout.write("miss\n");
    return new Promise(() => undefined);
  },
  async *stream() {
    yield await new Promise<Uint8Array>(() => undefined);
  },
  stats: () => ({ requests: 0, bytes: 0 }),
};
const [orphan] = mounts.stale().filter(({ alive }) => alive);
const image =
  orphan === undefined
    ? await mounts.acquire({
        workspace: "ws",
        index: await store.openImage(process.env["MANIFEST"] ?? ""),
        source,
        background: false,
        eager: false,
        signal: new AbortController().signal,
      })
    : await mounts.adoptMount(orphan.root);
if (orphan !== undefined) image.replaceSource(source);
process.stdout.write(`${image.root}\n`);
// Whoever cannot be reached any more loses its locks.
setInterval(() => mounts.status(), 60_000);
