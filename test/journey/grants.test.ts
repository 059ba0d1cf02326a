import { afterEach, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import type { CliResult } from "../kit/node.ts";
import { TenantRegistry } from "../kit/tenant-registry.ts";
import { type Image, World } from "../kit/world.ts";

const robot = { username: "robot", password: "the robot's password" };
const somebody = { username: "somebody", password: "somebody's password" };
const hello = "hello from the image";

let world: World;
let image: Image;
let tenant: TenantRegistry;
let scratch: string;

/** A node with a known image, of which everything is here: what a start needs is the right to it. */
async function open(grantLife: string, auth: "bearer" | "htpasswd" = "bearer"): Promise<void> {
  scratch = await mkdtemp(join(tmpdir(), "oci-node-grants-"));
  await chmod(scratch, 0o755);
  const config = join(scratch, "config.toml");
  await writeFile(config, `[workspaces.default]\ngrant_life = "${grantLife}"\n`, { mode: 0o600 });
  tenant = new TenantRegistry();
  world = await World.start({
    registry: { auth, accounts: [robot] },
    node: { args: ["--config", config, "--insecure-registry", tenant.host] },
  });
  image = await world.build("team/app:1", { throughProxy: true, kept: true });
  expect(await world.node.ok(["run", image.id])).toBe(hello);
}

afterEach(async () => {
  await world.stop();
  await tenant.stop();
  await rm(scratch, { recursive: true, force: true });
});

/** A run that did not start, and why. */
function refused({ code, stdout, stderr }: CliResult): string {
  expect([code, stdout]).toEqual([125, ""]);
  expect(stderr).toMatch(/^oci-node: container c-[0-9a-f]+: /);
  for (const { password } of [robot, somebody]) expect(stderr).not.toContain(password);
  return stderr;
}

const tokenRequests = (): number => world.registry.tokens?.requests.length ?? 0;
/** Starts until it is refused; gives what was said then. Whatever started before that said hello. */
async function untilRefused(what = image.id): Promise<string> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const result = await world.node.cli(["run", what]);
    if (result.code !== 0) return refused(result);
    expect(result.stdout).toBe(`${hello}\n`);
    expect(Date.now()).toBeLessThan(deadline);
  }
}
const nobodyAnswers = () => world.proxy.setFaults({ match: ".*", action: { kind: "status", status: 503 } });

describe("within the life of a grant", () => {
  test("a known image starts by it: nobody is asked, and a revoked account and a registry that is away do not matter", async () => {
    await open("15m");
    const asked = tokenRequests();
    await world.registry.setAccounts([somebody]);
    expect(await world.node.ok(["run", image.id])).toBe(hello);
    await nobodyAnswers();
    expect(await world.node.ok(["run", image.id])).toBe(hello);
    expect(tokenRequests()).toBe(asked);
  }, 120_000);
});

describe("after the life of a grant", () => {
  test("a revoked account starts nothing though its token lives on, and starts again with its rights", async () => {
    await open("3s");
    await world.registry.setAccounts([somebody]);
    expect(await untilRefused()).toContain(`${world.proxy.host} refuses the credential`);
    refused(await world.node.cli(["run", image.id]));
    await world.registry.setAccounts([robot]);
    await untilStarted();
  }, 120_000);

  test("a registry that is away starts nothing: which image, since when, and what to do is said", async () => {
    await open("3s");
    await nobodyAnswers();
    const told = await untilRefused();
    expect(told).toContain(
      `access to ${world.proxy.host}/team/app@${image.manifestDigest} cannot be proved now`,
    );
    expect(told).toMatch(/the last proof is \d+ s old and counts for 3 s/);
    expect(told).toContain("grant_life");
    await world.proxy.setFaults();
    await untilStarted();
  }, 120_000);

  test("a password that is no more starts nothing either, where the registry takes nothing else", async () => {
    await open("3s", "htpasswd");
    await world.registry.setAccounts([somebody]);
    expect(await untilRefused()).toContain(world.proxy.host);
  }, 120_000);
});

describe("without a life", () => {
  test("each start asks with the account itself; one that was revoked is refused at once, and so is one that nobody answers", async () => {
    await open("0");
    for (let start = 0; start < 3; start += 1) {
      const asked = tokenRequests();
      expect(await world.node.ok(["run", image.id])).toBe(hello);
      expect(tokenRequests()).toBeGreaterThan(asked);
    }
    await nobodyAnswers();
    refused(await world.node.cli(["run", image.id]));
    await world.proxy.setFaults();
    await untilStarted();
    await world.registry.setAccounts([somebody]);
    refused(await world.node.cli(["run", image.id]));
  }, 120_000);

  test("a password is proved at each start, and an open image that was closed starts no more", async () => {
    await open("0", "htpasswd");
    expect(await world.node.ok(["run", image.id])).toBe(hello);
    await world.registry.setAccounts([somebody]);
    refused(await world.node.cli(["run", image.id]));

    tenant.image = await busyboxImage();
    const { id } = await world.node.json<Image>(["image", "build", `${tenant.host}/open/app:1`]);
    expect(await world.node.ok(["run", id])).toBe(hello);
    tenant.closed = true;
    expect(refused(await world.node.cli(["run", id]))).toContain(tenant.host);
  }, 120_000);
});

async function untilStarted(): Promise<void> {
  const deadline = Date.now() + 30_000;
  while ((await world.node.cli(["run", image.id])).code !== 0) expect(Date.now()).toBeLessThan(deadline);
}
