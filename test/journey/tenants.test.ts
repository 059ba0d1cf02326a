import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { cgroups, mounts } from "../kit/leftovers.ts";
import type { TestRegistry } from "../kit/registry.ts";
import { type Tenant, TenantScene, tokenOf } from "../kit/tenant-scene.ts";
import { type Container, type Image, refusal } from "../kit/world.ts";

let scene: TenantScene;
let alpha: Tenant;
let beta: Tenant;

const settings = ({ host }: TestRegistry) => [
  "[identities.prod]",
  'type = "plugin"',
  'command = ["/bin/false"]',
  `match_images = ["${host}"]`,
  "[workspaces.alpha]",
  'identities = ["prod"]',
  "host_network = true",
  'credential_delivery = "sealed"',
  "release_credentials = true",
  "[workspaces.beta]",
  "host_network = false",
];

beforeAll(async () => {
  scene = await TenantScene.start(settings, "bearer");
  await scene.fill();
  [alpha, beta] = scene.tenants as [Tenant, Tenant];
}, 120_000);
afterAll(() => scene.stop(), 60_000);

const ownerOf = (tenant: Tenant) => ({ env: scene.as(tenant.tokens.owner) });
const cli = (tenant: Tenant, ...args: string[]) => scene.node.cli(args, ownerOf(tenant));

/** Asks until it is so. */
async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await isSo())) if (Date.now() > deadline) throw new Error(`not so after 30 s: ${what}`);
}

test("the host's network is for the workspace that the operator allows it", async () => {
  const run = ["run", "--network", "host"];
  expect((await cli(alpha, ...run, alpha.imageId, "--", "true")).code).toBe(0);
  const refused = await cli(beta, ...run, beta.imageId, "--", "true");
  expect(refused.code).toBe(125);
  expect(refused.stderr).toContain("the operator does not allow this workspace the host's network");
});

test("credentials reach workers as the operator says of each workspace", async () => {
  const deliveryOf = async (tenant: Tenant) => {
    const { imageCredential } = await scene.node.json<Container>(["inspect", tenant.ended], ownerOf(tenant));
    return imageCredential?.delivery;
  };
  expect([await deliveryOf(alpha), await deliveryOf(beta)]).toEqual(["sealed", "minted"]);
});

test("an identity of the operator's is for the workspace that may name it", async () => {
  const identitiesOf = async (tenant: Tenant) => {
    const { workspace, identities } = await scene.node.json<{
      workspace: string;
      identities: { name: string }[];
    }>(["identity"], ownerOf(tenant));
    return [workspace, ...identities.map(({ name }) => name)];
  };
  expect(await identitiesOf(alpha)).toEqual(["alpha", "prod"]);
  expect(await identitiesOf(beta)).toEqual(["beta"]);
  const build = ["image", "build", `${scene.registry.host}/of-beta/app:1`, "--identity", "prod"];
  expect(refusal(await cli(beta, ...build))).toContain("the workspace beta may not use the identity prod");
  expect(refusal(await cli(alpha, ...build))).not.toContain("may not use");
});

test("a stored password is given out where the operator allows it, and to nobody who may only look", async () => {
  const get = ["credential", "get", scene.registry.host];
  expect((await cli(alpha, ...get)).code).toBe(0);
  expect(refusal(await cli(beta, ...get), [scene.registry.account.password])).toContain(
    "release_credentials",
  );
  const viewer = await scene.node.cli(get, { env: scene.as(alpha.tokens.viewer) });
  expect(viewer.code).toBe(1);
  expect(viewer.stderr).toContain("a token with the role viewer may not call");
});

test("of workers a workspace sees what is its own there, and not where they are", async () => {
  interface Seen {
    readonly address: string;
    readonly containers: number;
  }
  const seenBy = async (options: object) => (await scene.node.json<Seen[]>(["worker", "ls"], options))[0];
  expect(await seenBy({})).toMatchObject({ containers: 4, address: expect.stringContaining("https://") });
  for (const tenant of [alpha, beta])
    expect(await seenBy(ownerOf(tenant))).toMatchObject({ containers: 2, address: "" });
});

test("an owner makes, sees and revokes tokens of his own workspace, and none that may more than he", async () => {
  const make = ["token", "create", "--role"];
  const made = await scene.node.json<{ id: string; token: string; workspace: string }>(
    [...make, "developer", "--name", "pipeline", "--expires", "30d"],
    ownerOf(beta),
  );
  expect(made.workspace).toBe("beta");
  for (const role of ["admin", "worker"])
    expect((await cli(beta, ...make, role)).stderr).toContain(
      `only an administrator makes tokens with the role ${role}`,
    );
  const elsewhere = await cli(beta, ...make, "viewer", "--workspace", "alpha");
  expect(refusal(elsewhere)).toContain("no workspace alpha");
  expect(refusal(await cli(beta, ...make, "viewer", "--expires", "2020-01-01"))).toContain("expired already");
  expect(refusal(await cli(beta, "token", "revoke", alpha.token))).toContain(`no token ${alpha.token}`);
  const listed = await scene.node.json<{ id: string; name: string; workspace: string }[]>(
    ["token", "ls"],
    ownerOf(beta),
  );
  expect(new Set(listed.map(({ workspace }) => workspace))).toEqual(new Set(["beta"]));
  expect(listed.map(({ id }) => id)).toContain(made.id);
  const developer = { env: { OCI_NODE_TOKEN: made.token } };
  expect((await scene.node.cli(["image", "ls"], developer)).code).toBe(0);
  expect((await scene.node.cli([...make, "viewer"], developer)).stderr).toContain("may not call");
  await scene.node.ok(["token", "revoke", made.id], ownerOf(beta));
  expect((await scene.node.cli(["image", "ls"], developer)).stderr).toContain("expired or revoked");
});

test("nobody locks himself out without --force", async () => {
  const last = await scene.node.json<{ id: string; token: string }>([
    "token",
    "create",
    "--role",
    "owner",
    "--workspace",
    "beta",
  ]);
  const own = { env: { OCI_NODE_TOKEN: last.token } };
  expect(refusal(await scene.node.cli(["token", "revoke", last.id], own))).toContain("--force");
  expect((await scene.node.cli(["image", "ls"], own)).code).toBe(0);
  await scene.node.ok(["token", "revoke", "--force", last.id], own);
  expect((await scene.node.cli(["image", "ls"], own)).code).toBe(1);
});

test("a workspace whose containers live stays, and they are named", async () => {
  const told = refusal(await scene.node.cli(["workspace", "rm", "alpha"]));
  expect(told).toContain(alpha.running);
  expect(told).toContain("--force");
  expect((await cli(alpha, "image", "ls")).code).toBe(0);
});

test("a workspace with secrets or images stays unless forced, also when nothing runs in it", async () => {
  const { node } = scene;
  await node.ok(["workspace", "create", "full"]);
  const full = { env: { OCI_NODE_TOKEN: await node.ok(tokenOf("owner", "full")) } };
  const kept = ["secret", "create", "registry.example", "--unchecked"];
  await node.ok(kept, { ...full, stdin: "USERNAME=u\nPASSWORD=p\n" });
  expect(refusal(await node.cli(["workspace", "rm", "full"]))).toMatch(
    /not empty: secrets: 1, images: 0[\s\S]*--force/,
  );
  expect((await node.json<unknown[]>(["secret", "ls"], full)).length).toBe(1);
  const gone = await node.json<object>(["workspace", "rm", "--force", "full"]);
  expect(gone).toMatchObject({ removed: "full", workspace: { secrets: 1, images: 0, tokens: 1 } });
});

test("a workspace that is removed by force is gone at once, wherever anything of it was", async () => {
  const image = await scene.node.json<Image>(["image", "inspect", alpha.imageId], ownerOf(alpha));
  const [{ id } = { id: "" }] = await scene.node.json<{ id: string }[]>(["workspace", "ls"], ownerOf(alpha));
  const traces = join(scene.node.dataDir, "index/traces");
  const ofAlpha = createHash("sha256").update(id).digest("hex").slice(0, 32);
  const tracesOfAlpha = async () =>
    (await readdir(traces, { recursive: true }).catch(() => [])).filter((name) =>
      name.includes(`/${ofAlpha}-`),
    );
  const indexOfAlpha = async () =>
    (await readdir(join(scene.node.dataDir, "index/images/sha256"))).filter((name) =>
      name.startsWith(image.manifestDigest.replace("sha256:", "")),
    );
  await until("the start is recorded", async () => (await tracesOfAlpha()).length > 0);
  expect(await indexOfAlpha()).toHaveLength(1);
  const mountsBefore = (await mounts(scene.node.dataDir)).length;
  const following = scene.node.start(["logs", "-f", alpha.running], { OCI_NODE_TOKEN: alpha.tokens.viewer });

  expect(await scene.node.ok(["workspace", "rm", "--force", "alpha"])).toBe("alpha");
  expect(await cgroups([alpha.running])).toEqual([]);
  await following.child.exited;
  const old = await cli(alpha, "run", alpha.imageId);
  expect(old.code).toBe(125);
  expect(old.stderr).toContain("the token is unknown, expired or revoked");
  expect(await tracesOfAlpha()).toEqual([]);
  expect(await indexOfAlpha()).toEqual([]);
  await until("its mounts are gone", async () => (await mounts(scene.node.dataDir)).length < mountsBefore);
  expect(await scene.node.ok(["run", beta.imageId], ownerOf(beta))).toBe("hello from the image");
});

test("a workspace of the same name is another one, and sees nothing of the one before", async () => {
  const unasked = await scene.node.cli(["workspace", "create", "alpha"]);
  expect([unasked.code, unasked.stderr]).toEqual([1, expect.stringContaining("--reuse-name")]);
  await scene.node.ok(["workspace", "create", "alpha", "--reuse-name"]);
  const again: Tenant = {
    ...alpha,
    tokens: { ...alpha.tokens, owner: await scene.node.ok(tokenOf("owner", "alpha")) },
  };
  for (const list of [
    ["image", "ls"],
    ["secret", "ls"],
    ["ps", "--all"],
  ])
    expect(await scene.node.json<unknown[]>(list, ownerOf(again))).toEqual([]);
  for (const lost of [
    ["run", alpha.imageId],
    ["logs", alpha.ended],
    ["inspect", alpha.running],
    ["image", "inspect", alpha.reference],
  ]) {
    const { code, stderr } = await cli(again, ...lost);
    expect(code).toBeGreaterThan(0);
    expect(stderr).toContain("no ");
  }
  const run = await scene.node.cli(["run", alpha.reference], { env: { OCI_NODE_TOKEN: again.tokens.owner } });
  expect(run.code).toBe(125);
  expect((await cli(alpha, "image", "ls")).stderr).toContain("the token is unknown, expired or revoked");
  const events = (await scene.node.ok(["audit", "--json"])).split("\n").map((line) => JSON.parse(line));
  const told = events.filter(({ workspace }) => workspace === "alpha").map(({ action }) => action);
  expect(told).toContain("secret.create");
  expect(events.map(({ action }) => action)).toContain("workspace.delete");
});
