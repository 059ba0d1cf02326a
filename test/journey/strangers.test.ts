import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { lazyStatusShape } from "../../src/cli/lazy-status.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { tokenOf } from "../kit/tenant-scene.ts";
import { type Container, type Image, refusal, World, withCredentials } from "../kit/world.ts";

const robot = { username: "robot", password: "the robot's password" };
const stranger = { username: "stranger", password: "the stranger's password" };
const may = (access: Record<string, ("pull" | "push")[]>) => ({ ...stranger, access });
const own = { "b/*": ["pull", "push"] as ("pull" | "push")[] };
const hello = "hello from the image";

let world: World;
let scratch: string;
let image: Image;
/** A's, with the image's mount. */
let running: string;
/** B's token. */
let env: Record<string, string>;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "oci-node-strangers-"));
  await chmod(scratch, 0o755);
  const config = join(scratch, "config.toml");
  await writeFile(config, `[workspaces.stranger]\ngrant_life = "0"\n`, { mode: 0o600 });
  world = await World.start({
    registry: { auth: "bearer", accounts: [robot, may(own)] },
    node: { args: ["--config", config] },
  });
  const extra = [{ path: "etc/secret", data: "A's own\n" }];
  image = await world.build("a/app:1", { image: await busyboxImage({ extra }), kept: true });
  expect(await world.node.ok(["run", image.id])).toBe(hello);
  running = await world.node.ok([
    "run",
    "-d",
    image.id,
    "--",
    "sh",
    "-c",
    "trap 'exit 0' TERM; sleep 600 & wait",
  ]);
  await world.reaches(running, "running");
  await world.node.ok(["workspace", "create", "stranger"]);
  env = {
    USERNAME: stranger.username,
    PASSWORD: stranger.password,
    OCI_NODE_TOKEN: await world.node.ok(tokenOf("owner", "stranger")),
  };
}, 120_000);
afterAll(async () => {
  await world.node.ok(["stop", running]);
  await world.stop();
  await rm(scratch, { recursive: true, force: true });
}, 60_000);

const b = (...args: string[]) => world.node.cli(args, { env });
const pinned = () => `${world.registry.host}/a/app@${image.manifestDigest}`;
const lazyStatus = (id: string) =>
  world.node.json<ReturnType<typeof lazyStatusShape>>(["image", "inspect", "--lazy", id], { env });

describe("a private image of one workspace, which is built, cached and mounted", () => {
  test("is not run by another's reference, digest or id", async () => {
    for (const text of [image.reference, pinned(), image.id]) {
      const result = await b("run", text);
      expect([result.code, result.stdout]).toEqual([125, ""]);
      const looked = refusal(await b("image", "inspect", "--lazy", text));
      expect(looked).not.toContain(image.indexSha256);
    }
  });

  test("is not built by another without rights of his own, however he names it", async () => {
    for (const text of [image.reference, pinned()])
      for (const flags of [[], withCredentials]) {
        const told = refusal(await b("image", "build", text, ...flags), [stranger.password, robot.password]);
        expect(told).toContain(world.registry.host);
      }
    expect(await world.node.ok(["image", "ls", "--json"], { env })).toBe("[]");
  });

  test("shows another who may have it nothing of what its starts read", async () => {
    await world.registry.setAccounts([robot, may({ ...own, "a/*": ["pull"] })]);
    const theirs = await world.node.json<Image>(["image", "build", image.reference, ...withCredentials], {
      env,
    });
    expect([theirs.manifestDigest, theirs.id]).toEqual([
      image.manifestDigest,
      expect.not.stringMatching(image.id),
    ]);
    const status = await lazyStatus(theirs.id);
    expect(status.traces).toEqual([]);
    expect(status.workers.flatMap(({ mounts }) => mounts)).toEqual([]);
    expect(await world.node.ok(["run", theirs.id], { env })).toBe(hello);
  });

  test("is run by another no more when his rights end, though it is cached, mounted, and known by his own row", async () => {
    const [theirs] = await world.node.json<Image[]>(["image", "ls"], { env });
    const id = theirs?.id ?? "";
    await world.registry.setAccounts([robot, may(own)]);
    for (const text of [id, image.reference, pinned()]) {
      const result = await b("run", text);
      expect([result.code, result.stdout]).toEqual([125, ""]);
    }
    const last = await b("run", id, "--", "cat", "/etc/secret");
    expect(last.stderr).toContain(`${world.registry.host}/a/app`);
    // What was mounted for him while the registry was asked is gone again.
    const deadline = Date.now() + 30_000;
    while ((await lazyStatus(id)).workers.some(({ mounts }) => mounts.length > 0))
      expect(Date.now()).toBeLessThan(deadline);
    expect((await world.node.json<Container>(["inspect", running])).state).toBe("running");
    expect(await world.node.ok(["run", image.id])).toBe(hello);
  });
});
