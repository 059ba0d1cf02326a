import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { createProvider } from "../credential/create-provider.ts";
import { detectCredentialType, principalOf } from "../credential/detect.ts";
import { CredentialError, type CredentialErrorCode } from "../credential/error.ts";
import { identityCredential } from "../credential/identity.ts";
import { IssuedAuthorizations } from "../credential/issued.ts";
import type { DefaultIdentity, ProviderDependencies, WorkspaceIdentity } from "../credential/issuer.ts";
import { marshalCredentials } from "../credential/marshal.ts";
import { credentialMap } from "../credential/value.ts";
import { authorizationToWire } from "../credential/wire.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { KeyFile } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { SecretStore } from "../secret/store.ts";
import { Vault } from "../secret/vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { type ReleaseRequest, releaseCredential } from "./release-credential.ts";
import { ImageStore } from "./store.ts";

const ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const password = "hunter2";
const basic = { USERNAME: "robot", PASSWORD: password };
const awsKeys = { AWS_ACCESS_KEY_ID: "AKIATEST", AWS_SECRET_ACCESS_KEY: password };
const endsAt = new Date(Math.floor(Date.now() / 1000) * 1000 + 12 * 3600_000);
const keyPath = join(tmpdir(), `oci-node-release-${process.pid}-${Date.now()}`);

let server: TestPostgres;
let vault: Vault;
let images: ImageStore;
let workspaces: WorkspaceStore;
let workspaceId: string;
let allowed = false;
let repositories: (string | undefined)[] = [];
let records: LogRecord[] = [];

beforeAll(async () => {
  server = await startTestPostgres();
  workspaces = new WorkspaceStore(server.database, singleKey(await KeyFile.open(keyPath, { create: true })));
  images = new ImageStore(server.database);
  vault = new Vault({ store: new SecretStore(server.database), workspaces });
  await configure({
    reset: true,
    sinks: { memory: (record) => void records.push(record) },
    loggers: [
      { category: ["oci-node"], lowestLevel: "debug", sinks: ["memory"] },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: [] },
    ],
  });
}, 60_000);
beforeEach(async () => {
  workspaceId = (await workspaces.ensure(`w-${crypto.randomUUID()}`)).id;
  allowed = false;
  repositories = [];
  records = [];
});
afterAll(async () => {
  await reset();
  await server.end();
  await rm(keyPath);
}, 60_000);

/** AWS, as it answers GetAuthorizationToken. */
const fetchEcr = async (): Promise<Response> => {
  const authorizationToken = Buffer.from("AWS:issued").toString("base64");
  return Response.json({ authorizationData: [{ authorizationToken, expiresAt: endsAt.getTime() / 1000 }] });
};

/** A workspace that may use the operator's identity `prod`, which makes passwords for one repository. */
const workspace: WorkspaceIdentity = {
  name: "acme",
  externalId: "oci-node:x",
  identity: (name) => ({
    name,
    awsKeys: () => Promise.reject(new Error("nobody is asked")),
    provider: (registry, repository) => ({
      registry,
      type: "identity",
      fingerprint: "f",
      renewable: true,
      async authorization() {
        repositories.push(repository);
        const [secret] = Object.values(credentialMap({ PASSWORD: "ambient" }));
        if (secret === undefined) throw new Error("no value");
        return { kind: "basic", username: "plugin", password: secret, expiresAt: endsAt };
      },
    }),
  }),
};

async function keep(registry: string, values: Record<string, string>, name: string): Promise<void> {
  const credentials = credentialMap(values);
  const type = detectCredentialType(registry, credentials);
  const principal = principalOf(registry, type, credentials);
  const value = marshalCredentials(registry, type, credentials);
  await vault.create({ workspaceId, name, value, registry, type, principal });
}

async function release(registry: string, more: Partial<ReleaseRequest> = {}) {
  const needed: ProviderDependencies = { fetch: fetchEcr, workspace, issued: new IssuedAuthorizations() };
  const released = await releaseCredential(
    {
      vault,
      images,
      providersOf: async () => needed,
      defaultProvider: async (_, wanted) => defaultFor(wanted, needed),
      releaseAllowed: async () => allowed,
    },
    { workspaceId, tokenId: "token-1", registry, repository: undefined, secretName: undefined, ...more },
    AbortSignal.timeout(30_000),
  );
  return { ...released, ...authorizationToWire(released.authorization) };
}

/** The default identity is for `ours.test` alone. */
function defaultFor(registry: string, needed: ProviderDependencies): DefaultIdentity | undefined {
  if (registry !== "ours.test") return undefined;
  const credential = identityCredential(registry, "prod");
  return { name: "prod", credential, provider: createProvider(credential, needed) };
}

async function refused(code: CredentialErrorCode, asked: Promise<unknown>): Promise<CredentialError> {
  const error = await asked.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(CredentialError);
  expect((error as CredentialError).code).toBe(code);
  expect(Bun.inspect(error)).not.toContain(password);
  return error as CredentialError;
}

const built = () => ({
  manifestDigest: `sha256:${crypto.randomUUID()}`,
  configDigest: "sha256:c",
  platform: "linux/amd64",
  indexSha256: "",
  sizeBytes: 1,
  inodes: 1,
  status: "ready" as const,
});

const logged = () =>
  records.map(({ level, message, properties }) => ({ level, message: message.join(""), ...properties }));

describe("what an issuer made", () => {
  test("is given out with its end and how far it reaches, and the log says to whom", async () => {
    await keep(ecr, awsKeys, "ecr");
    const released = await release(ecr);
    expect(released).toMatchObject({
      username: "AWS",
      secret: "issued",
      secretName: "ecr",
      repository: undefined,
    });
    expect(released.authorization.expiresAt).toEqual(endsAt);
    expect(released.scope).toContain("every repository of account 123456789012");
    const [line, ...others] = logged();
    expect(others).toEqual([]);
    expect(line).toMatchObject({
      level: "info",
      message: "gave out a registry credential",
      workspace: workspaceId,
      token: "token-1",
      registry: ecr,
      type: "aws",
      secret: "ecr",
      version: 1,
      validUntil: endsAt.toISOString(),
    });
    expect(JSON.stringify(line)).not.toMatch(/issued|hunter2/);
  });
});

describe("a stored password", () => {
  test("stays in the node, and the refusal tells the operator what to write", async () => {
    await keep("r.test", basic, "basic");
    const error = await refused("release_refused", release("r.test"));
    expect(error.message).toContain("secret basic");
    expect(error.next).toContain("[workspaces.acme] release_credentials = true");
    expect(logged()).toMatchObject([{ level: "warning", token: "token-1", secret: "basic", version: 1 }]);
  });

  test("is given out where the operator allows it, without an end, and rotated at once", async () => {
    allowed = true;
    await keep("r.test", basic, "basic");
    const released = await release("r.test");
    expect(released).toMatchObject({ username: "robot", secret: password });
    expect(released.authorization.expiresAt).toBeUndefined();
    const next = credentialMap({ ...basic, PASSWORD: "rotated" });
    await vault.update(workspaceId, "basic", marshalCredentials("r.test", "basic", next));
    expect((await release("r.test")).secret).toBe("rotated");
    expect(logged()).toMatchObject([{ version: 1 }, { version: 2 }]);
    expect(JSON.stringify(logged())).not.toMatch(/rotated|hunter2/);
  });

  test("and a token are told apart: an identity token stands beside <token>, a bare bearer token has no form", async () => {
    allowed = true;
    await keep("i.test", { REGISTRY_IDENTITY_TOKEN: "refresh" }, "refresh");
    expect(await release("i.test")).toMatchObject({ username: "<token>", secret: "refresh" });
    await keep("b.test", { REGISTRY_TOKEN: password }, "bearer");
    await refused("bad_value", release("b.test"));
  });
});

test("what opens more than registries stays in the node: the log says that it was asked for", async () => {
  await keep("eu.gcr.io", { GCP_ACCESS_TOKEN: "ya29.token" }, "google");
  const error = await refused("release_refused", release("eu.gcr.io"));
  expect(error.message).toContain("all that its account may at Google");
  allowed = true;
  expect(await release("eu.gcr.io")).toMatchObject({ username: "oauth2accesstoken", secret: "ya29.token" });
  expect(logged()).toMatchObject([{ level: "warning" }, { level: "info", secret: "google" }]);
});

test("what an identity of the operator's gets is let out by him alone, and is for the repository that it was got for", async () => {
  await keep("r.test", { OCI_NODE_IDENTITY: "prod" }, "ours");
  const error = await refused("release_refused", release("r.test"));
  expect(error.message).toContain("an identity of the operator's");
  expect(repositories).toEqual([]);
  allowed = true;
  const released = await release("r.test", { repository: "team/app" });
  expect(released).toMatchObject({ username: "plugin", secret: "ambient", repository: "team/app" });
  expect(repositories).toEqual(["team/app"]);
});

test("where there is no secret, the default identity's is given out by the operator's leave, and counts as none without", async () => {
  await refused("no_credentials", release("ours.test"));
  allowed = true;
  await refused("no_credentials", release("theirs.test"));
  expect(await release("ours.test")).toMatchObject({ username: "plugin", secretName: undefined });
  expect(logged()).toMatchObject([{ level: "info", identity: "prod", token: "token-1" }]);
  await keep("ours.test", basic, "own");
  expect((await release("ours.test")).username).toBe("robot");
});

test("what is got by a role that an identity of the operator's may take is his to let out, too", async () => {
  const role = { AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/pull", OCI_NODE_IDENTITY: "prod" };
  await keep(ecr, role, "role");
  await refused("release_refused", release(ecr));
});

describe("the secret", () => {
  test("is the only one of the registry, and of several the one named", async () => {
    allowed = true;
    await keep("r.test", basic, "one");
    await keep("r.test", { USERNAME: "alice", PASSWORD: "x" }, "two");
    const error = await refused("bad_value", release("r.test"));
    expect(error.message).toBe("the workspace has several secrets for r.test: one (robot), two (alice)");
    expect((await release("r.test", { secretName: "two" })).username).toBe("alice");
  });

  test("of several is the one that all images of the repository were built with, and is then for that repository", async () => {
    allowed = true;
    await keep("r.test", basic, "one");
    await keep("r.test", { USERNAME: "alice", PASSWORD: "x" }, "two");
    const build = async (repository: string, secretName: string) => {
      const row = {
        workspaceId,
        registry: "r.test",
        repository,
        reference: `r.test/${repository}:1`,
        ...built(),
      };
      const { id } = await images.put(row, []);
      const secret = await vault.get(workspaceId, secretName);
      await images.setImageCredentialSecret(id, secretName, secret.id);
    };
    await build("team/app", "two");
    await build("mixed", "one");
    await build("mixed", "two");
    expect(await release("r.test", { repository: "team/app" })).toMatchObject({
      username: "alice",
      repository: "team/app",
    });
    await refused("bad_value", release("r.test", { repository: "mixed" }));
    await refused("bad_value", release("r.test", { repository: "team/other" }));
    await refused("bad_value", release("r.test"));
  });

  test("of another registry is not taken, nor another workspace's", async () => {
    allowed = true;
    await keep("r.test:5000", basic, "other");
    await refused("no_credentials", release("r.test"));
    await refused("registry_mismatch", release("r.test", { secretName: "other" }));
    const stranger = (await workspaces.ensure(`w-${crypto.randomUUID()}`)).id;
    await refused("no_credentials", release("r.test:5000", { workspaceId: stranger }));
    const named = release("r.test:5000", { workspaceId: stranger, secretName: "other" });
    await expect(named).rejects.toMatchObject({ name: "SecretError", code: "not_found" });
  });

  test("whose content is for another registry than its row says is refused", async () => {
    allowed = true;
    const value = marshalCredentials("evil.test", "basic", credentialMap(basic));
    await vault.create({ workspaceId, name: "forged", value, registry: "r.test", type: "basic" });
    await refused("registry_mismatch", release("r.test"));
  });
});
