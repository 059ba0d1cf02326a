/** A process for tests to kill: mounts an image of the room's store lazily, prints where, and serves until it dies. */
import { join } from "node:path";
import { IndexStore } from "../index/store.ts";
import { LazyMounts } from "./lazy-mount.ts";
import { TestSource } from "./mount.test-kit.ts";

const [dir = ""] = process.argv.slice(2);
const store = await IndexStore.open(join(dir, "index"));
const mounts = await LazyMounts.create({
  stateDir: join(dir, "state"),
  cacheDir: join(dir, "cache"),
  transport: "auto",
});
const image = await mounts.acquire({
  workspace: "ws",
  index: await store.openImage(process.env["MANIFEST"] ?? ""),
  source: new TestSource(),
  background: false,
  eager: false,
  signal: new AbortController().signal,
});
process.stdout.write(`${image.root}\n`);
