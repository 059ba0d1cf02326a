/** A process for tests to kill while it fills its cache: mounts an image of the room, and says each request for its bytes. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { IndexStore } from "../index/store.ts";
import { LazyMounts } from "./lazy-mount.ts";
import { TestSource } from "./mount.test-kit.ts";

const [dir = "", manifest = "", transport = "auto"] = process.argv.slice(2);
const source = new TestSource();
for (const name of readdirSync(join(dir, "blobs")))
  source.blobs.set(`sha256:${name}`, new Uint8Array(readFileSync(join(dir, "blobs", name))));
source.beforeRead = (bytes) => {
  process.stdout.write(".");
  return bytes;
};
const store = await IndexStore.open(join(dir, "index"));
const mounts = await LazyMounts.create({
  stateDir: join(dir, "state"),
  cacheDir: join(dir, "cache"),
  transport: transport === "loop" ? "loop" : "auto",
});
const image = await mounts.acquire({
  workspace: "ws",
  index: await store.openImage(manifest),
  source,
  background: false,
  eager: false,
  signal: new AbortController().signal,
});
process.stdout.write(`${image.root}\n`);
