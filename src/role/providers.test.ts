import { describe, expect, test } from "bun:test";
import { makeConfig, type Settings } from "../config.ts";
import { CredentialError } from "../credential/error.ts";
import { createDefaultProvider, createIdentitiesFor, createProvidersOf, externalIdOf } from "./providers.ts";
import { workspacePolicies } from "./workspace-policy.ts";

const names = new Map([
  ["1", "acme"],
  ["2", "constructor"],
  ["3", "other"],
]);
const workspaces = {
  async get(id: string) {
    return { id, name: names.get(id) ?? "", createdAt: new Date(0) };
  },
};
const unreachable = async () => {
  throw new Error("nobody is asked");
};
const plugin = {
  type: "plugin" as const,
  command: ["/bin/false"] as [string],
  match_images: ["*.acme.test"],
};

function made(settings: Settings) {
  const config = makeConfig(settings);
  const policies = workspacePolicies(config, workspaces);
  const issuers = { fetch: unreachable, metadataFetch: unreachable };
  const providersOf = createProvidersOf({ config, policies, issuers, issuer: undefined });
  const dependencies = { policies, providersOf };
  const defaultProvider = createDefaultProvider(dependencies);
  return { ...dependencies, defaultProvider, identitiesFor: createIdentitiesFor(dependencies) };
}

const allowing: Settings = {
  identities: { prod: plugin, dev: plugin },
  workspaces: {
    acme: { identities: ["prod"], default_identity: "prod", host_network: true },
    nobody: { identities: [] },
  },
};

function refusal(call: () => unknown): CredentialError {
  try {
    call();
  } catch (error) {
    if (error instanceof CredentialError) return error;
    throw error;
  }
  throw new Error("it was allowed");
}

describe("a workspace's policy", () => {
  test("is what the configuration says of its name", async () => {
    const { policies } = made(allowing);
    expect(await policies("1")).toMatchObject({ name: "acme", host_network: true, identities: ["prod"] });
  });

  test("allows nothing where nothing is said, whatever the workspace is called", async () => {
    const { policies } = made(allowing);
    for (const id of ["2", "3"]) {
      expect(await policies(id)).toEqual({
        name: names.get(id) ?? "",
        host_network: false,
        default_network: "private",
        host_paths: [],
        publish: ["127.0.0.1:1024-65535"],
        identities: [],
        credential_delivery: "minted",
        release_credentials: false,
        grant_life: 900_000,
      });
    }
  });
});

describe("what a workspace's providers get", () => {
  test("is an external id that the tenant cannot choose, in the characters that AWS allows", async () => {
    const id = crypto.randomUUID();
    expect(externalIdOf(id)).toMatch(/^[\w+=,.@:/-]{2,1224}$/);
    expect((await made({}).providersOf(id)).workspace?.externalId).toBe(`oci-node:${id}`);
  });

  test("no token where the operator set no issuer", async () => {
    expect((await made({}).providersOf("1")).workspace?.token).toBeUndefined();
  });

  test("an identity only where the operator lists it, and the refusal tells him what to write", async () => {
    const { providersOf } = made(allowing);
    for (const [id, name] of [
      ["1", "dev"],
      ["1", "none-such"],
      ["3", "prod"],
      ["2", "constructor"],
    ] as const) {
      const { workspace } = await providersOf(id);
      const error = refusal(() => workspace?.identity(name));
      expect(error.code).toBe("identity_refused");
      expect(error.message).toBe(`the workspace ${names.get(id)} may not use the identity ${name}`);
      expect(error.next).toContain(`[workspaces.${names.get(id)}] identities = ["${name}"]`);
    }
  });
});

test("of a workspace's identities those are named that are for the registry and the repository", async () => {
  const ofTeam = { ...plugin, match_images: ["hub.acme.test/team"] as [string] };
  const { identitiesFor } = made({
    identities: { prod: plugin, team: ofTeam, ecr: { type: "aws", source: "instance" }, dev: plugin },
    workspaces: { acme: { identities: ["prod", "team", "ecr"] } },
  });
  expect(await identitiesFor("1", "hub.acme.test", "team/app")).toEqual(["prod", "team"]);
  expect(await identitiesFor("1", "hub.acme.test", "app")).toEqual(["prod"]);
  expect(await identitiesFor("1", "public.ecr.aws", "acme/app")).toEqual(["ecr"]);
  expect(await identitiesFor("1", "ghcr.io", "acme/app")).toEqual([]);
  expect(await identitiesFor("3", "hub.acme.test", "app")).toEqual([]);
});

describe("the identities of a node", () => {
  test.each([
    [{ type: "aws", source: "web_identity", role_arn: "arn:aws:iam::1:role/x" }],
    [{ type: "gcp", source: "metadata", service_account: "not an e-mail" }],
    [{ type: "azure", source: "workload", client_id: "not a GUID", tenant_id: "t" }],
  ] as const)("whose settings are wrong are told to the operator at the start: %j", (settings) => {
    expect(() => made({ identities: { mine: settings } })).toThrow("identities.mine: ");
  });

  test("of all types are made from what the README shows, without asking anybody", async () => {
    const { providersOf } = made({
      identities: {
        node: { type: "aws", source: "instance" },
        irsa: { type: "aws", source: "web_identity", role_arn: "arn:aws:iam::111111111111:role/pull" },
        pod: {
          type: "aws",
          source: "container",
          container_credentials_uri: "http://169.254.170.23/v1/credentials",
        },
        gcp: { type: "gcp", source: "metadata", service_account: "pull@acme.iam.gserviceaccount.com" },
        managed: { type: "azure", source: "managed" },
        plugin,
      },
      workspaces: { acme: { identities: ["node", "irsa", "pod", "gcp", "managed", "plugin"] } },
    });
    const { workspace } = await providersOf("1");
    const ecr = "111111111111.dkr.ecr.us-east-1.amazonaws.com";
    for (const [name, registry] of [
      ["node", ecr],
      ["irsa", ecr],
      ["pod", ecr],
      ["gcp", "europe-docker.pkg.dev"],
      ["managed", "acme.azurecr.io"],
      ["plugin", "eu.acme.test"],
    ] as const) {
      expect(workspace?.identity(name).provider(registry)).toMatchObject({ registry, renewable: true });
      expect(refusal(() => workspace?.identity(name).provider("ghcr.io")).code).toBe("registry_mismatch");
    }
  });
});

describe("the default identity of a workspace", () => {
  test("is the one that the operator set, where it is for the registry", async () => {
    const { defaultProvider } = made(allowing);
    const standard = await defaultProvider("1", "eu.acme.test");
    expect(standard).toMatchObject({
      name: "prod",
      provider: { type: "identity", registry: "eu.acme.test" },
    });
    expect(await defaultProvider("1", "ghcr.io")).toBeUndefined();
  });

  test("is none for what its plugin is not for, where that is known", async () => {
    const team = { ...plugin, match_images: ["*.acme.test/team"] as [string] };
    const { defaultProvider } = made({ ...allowing, identities: { prod: team, dev: plugin } });
    expect(await defaultProvider("1", "eu.acme.test")).toBeDefined();
    expect(await defaultProvider("1", "eu.acme.test", "team/app")).toBeDefined();
    expect(await defaultProvider("1", "eu.acme.test", "other/app")).toBeUndefined();
  });

  test("is none where he set none", async () => {
    expect(await made(allowing).defaultProvider("3", "eu.acme.test")).toBeUndefined();
  });

  test("is made once for all workspaces, so that its issuer is asked once", async () => {
    const { providersOf } = made({
      ...allowing,
      workspaces: { acme: { identities: ["prod"] }, other: { identities: ["prod"] } },
    });
    const [one, other] = await Promise.all([providersOf("1"), providersOf("3")]);
    expect(one.workspace?.identity("prod")).toBe(other.workspace?.identity("prod") as never);
  });
});
