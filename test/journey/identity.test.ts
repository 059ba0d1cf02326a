import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { account, google, IdentityWorld, issuer, pool } from "../kit/identity-world.ts";
import type { TestNode } from "../kit/node.ts";
import type { TestRegistry } from "../kit/registry.ts";
import { type Image, refusal, type Secret } from "../kit/world.ts";

let world: IdentityWorld;
let node: TestNode;
let registry: TestRegistry;
let open: TestRegistry;
beforeAll(async () => {
  world = await IdentityWorld.start({ identities: ["prod"], default_identity: "prod" });
  ({ node, registry, open } = world);
}, 120_000);
afterAll(() => world.stop(), 60_000);

const secrets = () => node.json<Secret[]>(["secret", "ls"]);
describe("where a build has no credential", () => {
  test("the workspace's default identity is used and said, and is kept as a secret that holds a name only", async () => {
    const reference = `${registry.host}/acme/images/app:1`;
    const built = await node.cli(["image", "build", reference]);
    expect(built.stderr).toContain(`resolving ${reference} with the identity prod, the workspace's default`);
    expect(built.code).toBe(0);
    const [run = ""] = await world.pluginRuns();
    expect(JSON.parse(run)).toMatchObject({ image: `${registry.host}/acme/images/app` });
    const image = await node.json<Image>(["image", "build", reference]);
    const [secret] = (await secrets()).filter(({ name }) => name === image.secretName);
    expect(secret).toMatchObject({ type: "identity", principal: "identity:prod", version: 1 });
  });

  test("and the default identity is for other registries, the registry is asked without one", async () => {
    const built = await node.cli(["image", "build", `${open.host}/public/app:1`]);
    expect(built.stderr).toContain("without credentials");
    expect(built.code).toBe(0);
    const refused = refusal(await node.cli(["image", "build", `${google}/acme/images/app:1`]));
    expect(refused).toContain("without credentials");
    expect(refused).toContain("--creds-file FILE or --creds-from docker.");
  });
});

describe("a credential that fails", () => {
  test("is not followed by none, when it is the default identity's, even where none would do", async () => {
    const result = await node.cli(["image", "build", `${open.host}/broken/app:1`]);
    expect(refusal(result)).toContain("the plugin of the identity prod ended with exit code 1");
    expect(result.stderr).not.toContain("without credentials");
  });

  test("is not followed by the default identity", async () => {
    const before = (await world.pluginRuns()).length;
    const result = await node.cli(
      ["image", "build", `${registry.host}/acme/images/app:1`, "--creds", "USERNAME,PASSWORD"],
      { env: { USERNAME: account.username, PASSWORD: "a wrong password" } },
    );
    expect(refusal(result, ["a wrong password"])).toContain(registry.host);
    expect(result.stderr).not.toContain("identity");
    expect(await world.pluginRuns()).toHaveLength(before);
  });
});

test("the operator is told of a workspace in his configuration that there is not", async () => {
  await node.waitForLog(/"the configuration speaks of a workspace that there is not"/);
  const told = node.records.filter(({ message }) => String(message).startsWith("the configuration speaks"));
  expect(told).toMatchObject([{ level: "warning", workspace: "elsewhere", there: ["default"] }]);
});

describe("an identity by name", () => {
  test("is refused where the operator did not allow it, at a build and for a secret, with what he has to write", async () => {
    const before = await secrets();
    for (const args of [
      ["image", "build", `${registry.host}/acme/images/app:1`, "--identity", "dev"],
      ["run", "--identity", "dev", `${registry.host}/acme/images/app:1`],
      ["secret", "create", registry.host, "--identity", "dev"],
      ["secret", "create", registry.host, "--identity", "no-such"],
    ]) {
      const name = args[args.indexOf("--identity") + 1];
      const result = await node.cli(args);
      const told = refusal(result, [], args[0] === "run" ? 125 : 1);
      expect(told).toContain(`the workspace default may not use the identity ${name}`);
      expect(told).toContain(`[workspaces.default] identities = ["${name}"]`);
    }
    expect(await secrets()).toEqual(before);
  });

  test("stands alone, but for a role of AWS that it is to assume", async () => {
    const args = ["image", "build", `${registry.host}/acme/images/app:1`, "--creds", "USERNAME,PASSWORD"];
    const env = { USERNAME: account.username, PASSWORD: account.password };
    const result = await node.cli([...args, "--identity", "prod"], { env });
    expect(result.code).toBe(2);
    expect(result.stderr).toContain("--creds AWS_ROLE_ARN --identity NAME");
  });

  test("is a credential like any other where he did", async () => {
    const name = await node.ok(["secret", "create", registry.host, "--identity", "prod", "--name", "mine"]);
    const image = await node.json<Image>([
      "image",
      "build",
      `${registry.host}/acme/images/app:1`,
      "--secret",
      name,
    ]);
    expect(image.registry).toBe(registry.host);
    await node.ok(["secret", "rm", "--force", name]);
    const named = await node.cli(["image", "build", image.reference, "--identity", "prod"]);
    expect(named.stderr).toContain("with the identity prod\n");
  });
});

describe("a workspace's own token", () => {
  test("opens a cloud that verifies it with what the gateway publishes", async () => {
    const image = await node.json<Image>(
      ["image", "build", `${google}/acme/images/app:1`, "--creds", "GCP_WORKLOAD_IDENTITY_PROVIDER"],
      { env: { GCP_WORKLOAD_IDENTITY_PROVIDER: pool } },
    );
    expect(world.exchange.verifier.outcomes).toEqual([""]);
    expect(world.exchange.verifier.claims[0]).toMatchObject({ iss: issuer, sub: "workspace:default" });
    expect(image.registry).toBe(google);
    const [secret] = (await secrets()).filter(({ name }) => name === image.secretName);
    expect(secret).toMatchObject({ type: "gcp", version: 1 });
  });

  test("is told by `identity`, with the policies that trust it", async () => {
    const shown = await node.json(["identity"]);
    expect(shown).toMatchObject({
      workspace: "default",
      issuer,
      subject: "workspace:default",
      identities: [{ name: "prod", type: "plugin", default: true }],
    });
    expect(String(shown["externalId"])).toMatch(/^oci-node:[0-9a-f-]{36}$/);
    expect(shown["externalId"]).toBe(`oci-node:${world.exchange.verifier.claims[0]?.["workspace_id"]}`);
    const text = await node.ok(["identity"]);
    expect(text).toContain("identities   prod (plugin, default)");
    expect(text).toContain('"id.example.test/node:sub": "workspace:default"');
    expect(text).toContain(`--issuer-uri=${issuer} `);
  });

  test("and no password or access token is in the node's log", () => {
    expect(node.log).not.toContain(account.password);
    expect(node.log).not.toContain("eyJ");
  });
});
