import { afterAll, beforeAll, expect, test } from "bun:test";
import { google, IdentityWorld, pool } from "../kit/identity-world.ts";
import type { Container, Image } from "../kit/world.ts";

let world: IdentityWorld;
let image: Image;
beforeAll(async () => {
  world = await IdentityWorld.start({ identities: ["prod"], default_identity: "prod" });
}, 120_000);
afterAll(() => world.stop(), 60_000);

async function lastContainer(): Promise<Container> {
  const all = await world.node.json<Container[]>(["ps", "--all"]);
  const last = all.toSorted((a, b) => (a.createdAt ?? "").localeCompare(b.createdAt ?? "")).at(-1);
  return await world.node.json<Container>(["inspect", last?.id ?? ""]);
}

test("a container of an image that an identity opened reads it with what was minted for its worker", async () => {
  const reference = `${world.registry.host}/acme/images/app:1`;
  image = await world.node.json<Image>(["image", "build", reference, "--identity", "prod", "--index-only"]);
  expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
  const { imageCredential, events } = await lastContainer();
  expect(imageCredential).toMatchObject({
    delivery: "minted",
    type: "identity",
    identity: "prod",
    secretName: image.secretName,
  });
  const told = events.map(({ message }) => message).join("\n");
  expect(told).toContain(`version 1 of the secret ${image.secretName} (the identity prod): `);
  expect(Date.parse(imageCredential?.validUntil ?? "")).toBeGreaterThan(Date.now());
});

test("a container of an image that federation opened gets what the cloud gave, and never the federation", async () => {
  const federated = await world.node.json<Image>(
    [
      "image",
      "build",
      `${google}/acme/images/app:1`,
      "--index-only",
      "--creds",
      "GCP_WORKLOAD_IDENTITY_PROVIDER",
    ],
    { env: { GCP_WORKLOAD_IDENTITY_PROVIDER: pool } },
  );
  expect(await world.node.ok(["run", federated.id])).toBe("hello from the image");
  expect((await lastContainer()).imageCredential).toMatchObject({ delivery: "minted", type: "gcp" });
});

test("the default identity stands in for a secret that is gone, and that is told", async () => {
  await world.node.ok(["secret", "rm", "--force", String(image.secretName)]);
  expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
  const { imageCredential, events } = await lastContainer();
  expect(imageCredential).toMatchObject({ delivery: "minted", identity: "prod", secretName: null });
  const told = events.filter(({ kind }) => kind === "credential").map(({ message }) => message);
  expect(told.join("\n")).toContain("is gone");
  expect(told.join("\n")).toContain("identity prod");
});

test("once the operator takes the identity away the run fails by name, and nothing stands in for it", async () => {
  const reference = `${world.registry.host}/acme/images/app:1`;
  image = await world.node.json<Image>(["image", "build", reference, "--identity", "prod", "--index-only"]);
  await world.restart({ identities: ["dev"], default_identity: "dev" });
  const before = (await world.pluginRuns()).length;
  const result = await world.node.cli(["run", image.id]);
  expect(result.code).toBe(125);
  expect(result.stderr).toContain("the workspace default may not use the identity prod");
  expect((await lastContainer()).state).toBe("failed");
  expect(await world.pluginRuns()).toHaveLength(before);
});
