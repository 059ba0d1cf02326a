import { afterAll, expect, test } from "bun:test";
import { run, tryRun } from "../../src/std/spawn.ts";
import { busyboxImage } from "./busybox-image.ts";
import { push, withAuthFile } from "./push.ts";
import { type Account, TestRegistry } from "./registry.ts";

const reader: Account = { username: "reader", password: "r", access: { "team/*": ["pull"] } };
const writer: Account = { username: "writer", password: "w" };
const registries: TestRegistry[] = [];
afterAll(async () => {
  for (const registry of registries) await registry.stop();
});

async function inspect(registry: TestRegistry, reference: string, account?: Account) {
  return withAuthFile(registry.host, account, (authFile) =>
    tryRun(["skopeo", "inspect", "--tls-verify=false", "--authfile", authFile, `docker://${reference}`]),
  );
}

for (const auth of ["htpasswd", "bearer"] as const) {
  test(`a registry with ${auth} takes an image unchanged and asks for the password`, async () => {
    const registry = await TestRegistry.start({ auth, accounts: [writer] });
    registries.push(registry);
    const image = await busyboxImage({ compression: "none" });
    const reference = await push(image, registry, "team/app:1");
    const good = await inspect(registry, reference, writer);
    expect(JSON.parse(good.stdout).Digest).toBe(image.manifestDigest);
    expect((await inspect(registry, reference, { username: "writer", password: "no" })).exitCode).not.toBe(0);
    expect((await inspect(registry, reference)).exitCode).not.toBe(0);
    expect(await Bun.file(registry.blobPath(image.layers[0]?.digest ?? "")).exists()).toBe(true);
  });
}

test("bearer tokens are good only for what the account may do", async () => {
  const registry = await TestRegistry.start({ auth: "bearer", accounts: [writer, reader] });
  registries.push(registry);
  const image = await busyboxImage();
  await push(image, registry, "team/app:1", writer);
  await push(image, registry, "other/app:1", writer);
  expect((await inspect(registry, `${registry.host}/team/app:1`, reader)).exitCode).toBe(0);
  expect((await inspect(registry, `${registry.host}/other/app:1`, reader)).exitCode).not.toBe(0);
  await expect(push(image, registry, "team/app:2", reader)).rejects.toThrow();
});

test("nothing is left of a registry that was stopped", async () => {
  const registry = await TestRegistry.start({ auth: "none" });
  const dir = registry.blobPath("sha256:00").replace(/\/storage\/.*/, "");
  await registry.stop();
  expect(await Bun.file(`${dir}/config.json`).exists()).toBe(false);
  expect((await run(["ps", "-eo", "args"])).stdout).not.toContain(dir);
});
