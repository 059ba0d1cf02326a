import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq } from "drizzle-orm";
import type { AuditEvent } from "../audit/audit.ts";
import type { Container } from "../container/container.ts";
import { createProvider } from "../credential/create-provider.ts";
import { identityCredential } from "../credential/identity.ts";
import type { DefaultIdentity, Identity } from "../credential/issuer.ts";
import { marshalCredentials } from "../credential/marshal.ts";
import { mintedProvider } from "../credential/minted.ts";
import { credentialMap } from "../credential/value.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage } from "../db/rows.test-kit.ts";
import { images } from "../db/schema.ts";
import type { Image } from "../image/image.ts";
import { ImageStore } from "../image/store.ts";
import { RegistryClient } from "../registry/client.ts";
import { mediaTypes } from "../registry/descriptor.ts";
import { type DockerRegistry, startDockerRegistry } from "../registry/docker-registry.test-kit.ts";
import { RegistryError } from "../registry/error.ts";
import { makeImage, pushImage } from "../registry/image.test-kit.ts";
import { startRawServer } from "../registry/raw-server.test-kit.ts";
import { startTokenService, type TokenService } from "../registry/token-service.test-kit.ts";
import { KeyFile } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { type BootKey, generateBootKey } from "../secret/seal.ts";
import { SecretStore } from "../secret/store.ts";
import { Vault } from "../secret/vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { Redacted } from "../std/redacted.ts";
import { type AttachDependencies, type AttachedCredentials, attachCredentials } from "./attach.ts";
import type { Worker } from "./worker.ts";

const keyPath = join(tmpdir(), `oci-node-attach-${process.pid}-${Date.now()}`);
const pushed = makeImage();
const password = "the robot's password";
const grantLifeMs = 15 * 60_000;
const never = new AbortController().signal;
let postgres: TestPostgres;
let vault: Vault;
let store: ImageStore;
let workspaceId: string;
let bootKey: BootKey;
let tokens: TokenService;
let byTokens: DockerRegistry;
let byPassword: DockerRegistry;
let dependencies: AttachDependencies;
let noted: AuditEvent[];
/** Of which secret what was seen. */
let seen: [string, string][];

beforeAll(async () => {
  postgres = await startTestPostgres();
  const workspaces = new WorkspaceStore(
    postgres.database,
    singleKey(await KeyFile.open(keyPath, { create: true })),
  );
  vault = new Vault({ store: new SecretStore(postgres.database), workspaces });
  store = new ImageStore(postgres.database);
  workspaceId = (await workspaces.ensure("w")).id;
  bootKey = await generateBootKey();
  const robot = { password, repositories: ["team/app", "team/other"] };
  tokens = await startTokenService({ users: { robot } });
  byTokens = await startDockerRegistry({ kind: "token", ...tokens });
  byPassword = await startDockerRegistry({ kind: "htpasswd", username: "robot", password });
  const basic = `Basic ${Buffer.from(`robot:${password}`).toString("base64")}`;
  await pushImage(byPassword.host, "team/app", "1", pushed, { Authorization: basic });
  for (const repository of ["team/app", "team/other"]) {
    const asked = `${tokens.realm}?service=${tokens.service}&scope=repository:${repository}:pull,push`;
    const { token } = (await (await fetch(asked, { headers: { Authorization: basic } })).json()) as {
      token: string;
    };
    await pushImage(byTokens.host, repository, "1", pushed, { Authorization: `Bearer ${token}` });
  }
}, 60_000);
beforeEach(() => {
  noted = [];
  seen = [];
  dependencies = {
    vault,
    registry: client(),
    providersOf: async () => ({}),
    defaultProvider: async () => undefined,
    deliveryOf: async () => "minted",
    grantLifeOf: async () => grantLifeMs,
    noteUse: (event) => noted.push(event),
    seen: async (secretId, what) => void seen.push([secretId, what]),
  };
});
afterAll(async () => {
  await byTokens.stop();
  await byPassword.stop();
  await tokens.stop();
  await postgres.end();
  await rm(keyPath);
}, 60_000);

/** A process that knows nothing yet. */
function client(): RegistryClient {
  const hosts = [byTokens.host, byPassword.host, new URL(tokens.realm).host, "127.0.0.1:1"];
  return new RegistryClient({
    policy: { insecureHosts: new Set(hosts), privateHosts: new Set(), attemptsMax: 1, totalTimeoutMs: 2_000 },
  });
}

const basicAt = (host: string, secret: string): Redacted<string> =>
  marshalCredentials(host, "basic", credentialMap({ USERNAME: "robot", PASSWORD: secret }));

/** An image of a registry, with a secret or without, and a container of it. */
async function scene(
  host: string,
  value?: Redacted<string>,
): Promise<{ container: Container; image: Image }> {
  const imageId = await insertImage(postgres.database, workspaceId);
  const named = value && (await vault.create({ workspaceId, name: `s-${imageId}`, value }));
  const facts = {
    registry: host,
    repository: "team/app",
    manifestDigest: pushed.manifest.digest,
    credentialSecretName: named?.name ?? null,
    credentialSecretId: named?.id ?? null,
  };
  await postgres.database.query((db) => db.update(images).set(facts).where(eq(images.id, imageId)));
  const container = { id: "c-1", imageId, workspaceId, imageCredential: undefined } as unknown as Container;
  return { container, image: await store.get(workspaceId, imageId) };
}

const worker = (): Worker =>
  ({ id: "w1", bootNonce: "boot", bootPublicKey: bootKey.publicKey }) as unknown as Worker;

async function attach(
  { container, image }: { container: Container; image: Image },
  options: { renewal?: boolean; refused?: boolean } = {},
): Promise<AttachedCredentials> {
  return attachCredentials(dependencies, container, image, worker(), options);
}

/** What the worker finds in the sealed text. */
function opened({ sealed, requestId, expiresAt }: AttachedCredentials): Promise<Redacted<string>> {
  return bootKey.open(sealed, {
    requestId,
    containerId: "c-1",
    workerId: "w1",
    bootNonce: "boot",
    expiresAt,
  });
}

const failure = (work: Promise<unknown>): Promise<unknown> => work.catch((error: unknown) => error);

describe("a registry with a token service", () => {
  test("has a token for the repository minted, with which a worker may pull that one and no other", async () => {
    const made = await scene(byTokens.host, basicAt(byTokens.host, password));
    const attached = await attach(made);
    expect(attached.credential).toMatchObject({
      delivery: "minted",
      type: "basic",
      scope: "pull team/app",
      secretVersion: 1,
    });
    const { givenAt, validUntil, renewAt } = attached.credential;
    const lifeMs = Number(validUntil) - Number(givenAt);
    expect(lifeMs).toBeGreaterThan(290_000);
    expect(Math.abs(Number(renewAt) - Number(givenAt) - lifeMs / 2)).toBeLessThan(1_000);
    const text = await opened(attached);
    expect(text.expose()).not.toContain(password);
    const before = tokens.requests.length;
    const pull = (repository: string) =>
      client()
        .repository({ registry: byTokens.host, repository }, mintedProvider(text, validUntil))
        .headManifest(pushed.manifest.digest, never);
    expect((await pull("team/app")).digest).toBe(pushed.manifest.digest);
    expect(await failure(pull("team/other"))).toMatchObject({ name: "RegistryError" });
    expect(tokens.requests.length).toBe(before);
  });

  test("is asked once for many containers, and again when what it gave is refused or the secret is rotated", async () => {
    const made = await scene(byTokens.host, basicAt(byTokens.host, password));
    const before = tokens.requests.length;
    const attached = await Promise.all([1, 2, 3, 4].map(() => attach(made)));
    expect(tokens.requests.length - before).toBe(1);
    const name = String(made.image.credentialSecretName);
    await vault.update(workspaceId, name, basicAt(byTokens.host, "a wrong one"));
    expect(await failure(attach(made))).toMatchObject({ code: "unauthorized" });
    await vault.update(workspaceId, name, basicAt(byTokens.host, password));
    expect((await attach(made)).credential).toMatchObject({ secretVersion: 3, delivery: "minted" });
    expect((await opened(attached[0] as AttachedCredentials)).expose()).toContain("REGISTRY_TOKEN");
  });

  test("gets the credential itself where the workspace's policy says so, and is not even asked", async () => {
    dependencies = { ...dependencies, deliveryOf: async () => "sealed" };
    const value = basicAt(byTokens.host, password);
    const before = tokens.requests.length;
    const attached = await attach(await scene(byTokens.host, value));
    expect((await opened(attached)).expose()).toBe(value.expose());
    expect(attached.credential).toMatchObject({
      delivery: "sealed",
      scope: "everything that the credential may",
    });
    expect(attached.credential.sealedReason).toBeUndefined();
    expect(tokens.requests.length).toBe(before);
  });

  test("has each use of its secret written down, and a renewal when something else is given only", async () => {
    const made = await scene(byTokens.host, basicAt(byTokens.host, password));
    const { credential } = await attach(made);
    const name = String(made.image.credentialSecretName);
    const use = { container: "c-1", image: made.image.id, worker: "w1", delivery: "minted", version: "1" };
    expect(noted).toMatchObject([
      { action: "secret.use", workspaceId, target: { kind: "secret", name }, fields: use, outcome: "ok" },
    ]);
    const container = { ...made.container, imageCredential: credential } as Container;
    await attach({ ...made, container }, { renewal: true });
    expect(noted).toHaveLength(1);
    const rotated = basicAt(byTokens.host, `${password}!`);
    await vault.update(workspaceId, name, rotated);
    dependencies = { ...dependencies, deliveryOf: async () => "sealed" };
    await attach({ ...made, container }, { renewal: true });
    expect(noted.slice(1)).toMatchObject([{ fields: { ...use, delivery: "sealed", version: "2" } }]);
    expect(JSON.stringify(noted)).not.toContain(password);
  });

  test("that refuses ends the hand-over by name, and nothing is given out", async () => {
    const wrong = failure(attach(await scene(byTokens.host, basicAt(byTokens.host, "a wrong one"))));
    expect(await wrong).toMatchObject({ name: "RegistryError", code: "unauthorized" });
    expect(String(await wrong)).toContain(byTokens.host);
    expect(String(await wrong)).not.toContain("a wrong one");
  });
});

test("what is refused and what is proved is seen of the secret, and what nobody could say is not", async () => {
  const secretOf = ({ image }: { image: Image }) => String(image.credentialSecretId);
  const good = await scene(byTokens.host, basicAt(byTokens.host, password));
  await attach(good);
  const wrong = await scene(byTokens.host, basicAt(byTokens.host, "another wrong one"));
  await failure(attach(wrong));
  // A worker says so, of whatever it has.
  await attach(good, { renewal: true, refused: true });
  const away = "127.0.0.1:1";
  await attach(await scene(away, basicAt(away, password)));
  expect(seen).toEqual([
    [secretOf(good), "proved"],
    [secretOf(wrong), "refused"],
    [secretOf(good), "refused"],
  ]);
});

test("what was minted long ago and is refused speaks of its age, as long as the credential mints another", async () => {
  const { container, image } = await scene(byTokens.host, basicAt(byTokens.host, password));
  const given = async (agoMs: number) => {
    seen = [];
    const givenAt = new Date(Date.now() - agoMs);
    const imageCredential = { delivery: "minted" as const, secretVersion: 1, givenAt };
    await attach({ container: { ...container, imageCredential }, image }, { renewal: true, refused: true });
    return seen.map(([, what]) => what);
  };
  expect(await given(3_600_000)).not.toContain("refused");
  expect(await given(1_000)).toContain("refused");
});

test("a registry that knows passwords only gets the credential itself, and that is said", async () => {
  const value = basicAt(byPassword.host, password);
  const attached = await attach(await scene(byPassword.host, value));
  expect((await opened(attached)).expose()).toBe(value.expose());
  expect(attached.credential).toMatchObject({
    delivery: "sealed",
    sealedReason: `${byPassword.host} takes nothing but the credential itself`,
  });
});

describe("a registry that cannot be asked from the control plane", () => {
  const away = "127.0.0.1:1";

  test("gets the credential itself, and minting is tried again later", async () => {
    const attached = await attach(await scene(away, basicAt(away, password)));
    expect(attached.credential).toMatchObject({ delivery: "sealed" });
    expect(attached.credential.sealedReason).toMatch(`nothing was minted: ${away} `);
    expect(Number(attached.credential.renewAt)).toBeGreaterThan(Date.now());
  });

  test("gets no more logins when it limits them: what is held back here is not tried from the worker", async () => {
    const where = { registry: away, repository: "team/app" };
    const limited = new RegistryError("rate_limited", "too many logins", where, {});
    dependencies = {
      ...dependencies,
      registry: { mintPull: () => Promise.reject(limited), mintedPull: () => undefined },
    };
    expect(await failure(attach(await scene(away, basicAt(away, password))))).toBe(limited);
  });

  test("brings a worker with something good no more than that: it asks again", async () => {
    const made = await scene(away, basicAt(away, password));
    const minted = { delivery: "minted", givenAt: new Date(), validUntil: new Date(Date.now() + 60_000) };
    const container = { ...made.container, imageCredential: minted } as Container;
    const waiting = attach({ ...made, container }, { renewal: true });
    expect(await failure(waiting)).toMatchObject({ code: "unreachable" });
    const refused = attach({ ...made, container }, { renewal: true, refused: true });
    expect((await refused).credential.delivery).toBe("sealed");
  });
});

describe("a secret that is gone", () => {
  const without = async () => {
    const made = await scene(byTokens.host, basicAt(byTokens.host, password));
    await vault.remove(workspaceId, String(made.image.credentialSecretName), { force: true });
    return made;
  };

  test("leaves a run without a credential, and says so", async () => {
    const attached = await attach(await without());
    expect(attached).toMatchObject({ sealed: "", credential: { delivery: "none" } });
    expect(attached.absentReason).toContain("is gone");
  });

  test("is stood in for by the workspace's default identity, which is minted only", async () => {
    const credential = credentialMap({ USERNAME: "robot", PASSWORD: password });
    const standIn = (host: string): DefaultIdentity => ({
      name: "prod",
      credential: identityCredential(host, "prod"),
      provider: createProvider({ registry: host, type: "basic", credentials: credential }),
    });
    dependencies = { ...dependencies, defaultProvider: async (_, host) => standIn(host) };
    const attached = await attach(await without());
    expect(attached.credential).toMatchObject({
      delivery: "minted",
      identity: "prod",
      scope: "pull team/app",
    });
    expect(attached.absentReason).toContain("is gone");
    const made = await scene(byPassword.host, basicAt(byPassword.host, password));
    await vault.remove(workspaceId, String(made.image.credentialSecretName), { force: true });
    expect(await failure(attach(made))).toMatchObject({ code: "provider_failed" });
  });
});

describe("a registry that asks nobody for a credential", () => {
  const reply = {
    status: 200,
    headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": pushed.manifest.digest },
    body: pushed.manifestBytes,
  };

  /** What a worker gets of a workspace whose image names a secret of this value. */
  const attachedAt = async (valueAt: (host: string) => Redacted<string>): Promise<AttachedCredentials> => {
    const open = await startRawServer(() => reply);
    try {
      const policy = { insecureHosts: new Set([open.host]), privateHosts: new Set<string>() };
      dependencies = { ...dependencies, registry: new RegistryClient({ policy }), providersOf };
      return await attach(await scene(open.host, valueAt(open.host)));
    } finally {
      await open.stop();
    }
  };
  const providersOf = async () => ({
    workspace: {
      name: "w",
      externalId: "oci-node:w",
      identity: (name: string): Identity => ({
        name,
        provider: (registry) => ({
          registry,
          type: "identity",
          fingerprint: "prod",
          renewable: true,
          authorization: async () => ({
            kind: "basic",
            username: "oauth2accesstoken",
            password: new Redacted("of the machine"),
            expiresAt: new Date(Date.now() + 3600_000),
          }),
        }),
      }),
    },
  });

  test("has none minted from an identity, which cannot be sealed: the worker does not need one", async () => {
    const identity = credentialMap({ OCI_NODE_IDENTITY: "prod" });
    const attached = await attachedAt((host) => marshalCredentials(host, "identity", identity));
    expect(attached).toMatchObject({ sealed: "", absentReason: "", credential: { delivery: "none" } });
  });

  test("gets a worker the credential itself all the same, as it may ask for it with a layer", async () => {
    const attached = await attachedAt((host) => basicAt(host, password));
    expect((await opened(attached)).expose()).toContain(password);
    expect(attached.credential).toMatchObject({
      delivery: "sealed",
      sealedReason: expect.stringContaining("did not ask for a credential"),
    });
  });
});

test("a public image has none", async () => {
  const attached = await attach(await scene(byTokens.host));
  expect(attached).toMatchObject({ sealed: "", absentReason: "", credential: { delivery: "none" } });
});
