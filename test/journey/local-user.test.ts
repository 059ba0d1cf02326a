import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { TestNode } from "../kit/node.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { credentialVariables, withCredentials } from "../kit/world.ts";

let registry: TestRegistry;
let node: TestNode;
let container: string;

const waits = "trap 'exit 0' TERM; echo up; sleep 600 & wait";

beforeAll(async () => {
  registry = await TestRegistry.start({ auth: "htpasswd" });
  node = await TestNode.start({ insecureRegistries: registry.insecureHosts });
  const extra = [{ path: "srv/of-a-tenant", data: "the source of a tenant\n" }];
  const pushed = await push(await busyboxImage({ extra }), registry, "tenant/app:1");
  const env = credentialVariables(registry);
  await node.ok(["image", "build", pushed, ...withCredentials], { env });
  container = await node.ok(["run", "-d", pushed, "--", "sh", "-c", waits]);
  const until = Date.now() + 30_000;
  while ((await node.json<{ state: string }>(["inspect", container])).state !== "running")
    if (Date.now() > until) throw new Error("the container does not run");
}, 120_000);
afterAll(async () => {
  await node.stop();
  await registry.stop();
}, 60_000);

/** What a user of the host without rights finds below the data folder and can read, but for what is the database's. */
async function readable(): Promise<string[]> {
  const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
  // What cannot be entered is what is wanted: find ends with 1 then.
  const find =
    'cd /; find "$0" \\( -type f -o -type s \\) -readable -not -path "*/postgres/*" 2>/dev/null || true';
  const { stdout } = await run([...asNobody, "sh", "-c", find, node.dataDir]);
  return stdout.split("\n").filter((line) => line !== "");
}

test("another user of the host reads no file of an image that is built, mounted or running here", async () => {
  expect(await readable()).toEqual([]);
});

test("folders that an earlier version left open are closed at the next start", async () => {
  await node.ok(["stop", container]);
  await node.stopProcess();
  const open = ["index", "index/layers", "index/images", "worker/mounts"].map((name) =>
    join(node.dataDir, name),
  );
  for (const path of open) await chmod(path, 0o755);
  expect(await readable()).not.toEqual([]);
  const { dataDir } = node;
  const next = await TestNode.start({ dataDir });
  try {
    expect(await readable()).toEqual([]);
  } finally {
    await next.stop();
  }
}, 60_000);
