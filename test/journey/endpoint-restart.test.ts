import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { endpointShape } from "../../src/cli/endpoint-shape.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { httpImage } from "../kit/http-image.ts";
import { leftovers, sweep } from "../kit/leftovers.ts";
import { TestNode } from "../kit/node.ts";
import { World } from "../kit/world.ts";

type Endpoint = ReturnType<typeof endpointShape>;

let world: World;
let next: TestNode | undefined;
let dataDir: string;
let args: string[];

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "oci-node-endpoints-"));
  await chmod(dataDir, 0o755);
  const config = join(dataDir, "node.toml");
  const [second = 0, third = 0] = crypto.getRandomValues(new Uint8Array(2));
  await writeFile(config, `[worker.network]\nsubnet = "10.${64 + (second & 63)}.${third}.0/26"\n`);
  args = ["--config", config];
  world = await World.start({ node: { dataDir, args } });
}, 120_000);
afterAll(async () => {
  await next?.discard();
  await world.node.discard();
  await world.proxy.stop();
  await world.registry.stop();
  await sweep(dataDir);
  await rm(dataDir, { recursive: true, force: true });
}, 60_000);

const look = (node: TestNode, name: string) => node.json<Endpoint>(["endpoint", "inspect", name]);

test("a version that does not come up leaves the one before, which is there again after its node's crash", async () => {
  const { node } = world;
  const http = (await world.build("endpoint/http:1", { image: await httpImage(), kept: true })).id;
  const url = await node.ok(["endpoint", "deploy", "web", http, "--public", "--keep-warm", "600"]);
  expect(url).toBe(`${node.url}/endpoint/web`);
  expect((await fetch(url)).status).toBe(200);
  const [id = ""] = (await look(node, "web")).containers;

  const shell = (await world.build("endpoint/shell:1", { image: await busyboxImage(), kept: true })).id;
  const broken = ["--public", "--", "sh", "-c", "echo no such module; exit 3"];
  const failed = await node.cli(["endpoint", "deploy", "web", shell, ...broken]);
  expect([failed.code, failed.stdout]).toEqual([1, ""]);
  expect(failed.stderr).toContain("  | no such module\n");
  expect(failed.stderr).toMatch(
    /version 2 of web did not come up: container c-\w+ ended with exit code 3: it/,
  );
  expect(failed.stderr).toContain("Version 1 goes on.");
  expect(await node.ok(["endpoint", "ls"])).toMatch(/^web +active, failed +1, 2 +1 /m);
  expect(await node.ok(["endpoint", "logs", "web", "--tail", "1"])).toMatch(/^c-\w+ \| no such module$/m);

  await node.crash();
  next = await TestNode.start({ dataDir, args, insecureRegistries: world.registry.insecureHosts });
  expect((await fetch(`${next.url}/endpoint/web`)).status).toBe(200);
  const after = await look(next, "web");
  expect([after.containers, after.active?.version]).toEqual([[id], 1]);

  const removed = next.cli(["endpoint", "rm", "web"]);
  expect((await removed).code).toBe(0);
  expect((await fetch(`${next.url}/endpoint/web`)).status).toBe(401);
  expect(await next.json<unknown[]>(["ps"])).toEqual([]);
  expect(await next.stopProcess()).toBe(0);
  expect(await leftovers(dataDir, [id])).toEqual([]);
}, 120_000);
