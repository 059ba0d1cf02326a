import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq, sql } from "drizzle-orm";
import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { WorkerIdentityStore } from "../cluster/identity-store.ts";
import { defaultOptions } from "../container/options.ts";
import { ContainerStore } from "../container/store.ts";
import { WorkerClients } from "../container/worker-client.ts";
import { CredentialError } from "../credential/error.ts";
import { marshalCredentials } from "../credential/marshal.ts";
import { credentialMap } from "../credential/value.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage } from "../db/rows.test-kit.ts";
import { images, containers as rows, workers } from "../db/schema.ts";
import { CredentialDelivery } from "../gen/oci_node/v1/image_credential_pb.ts";
import { type ContainerRequest, WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { ImageStore } from "../image/store.ts";
import type { Reference } from "../reference/reference.ts";
import { RegistryError } from "../registry/error.ts";
import type { MintedPull } from "../registry/mint.ts";
import { type Server, serve } from "../rpc/server.ts";
import { SecretError } from "../secret/error.ts";
import { KeyFile } from "../secret/kek.ts";
import { type Keyring, singleKey } from "../secret/keyring.ts";
import { generateBootKey } from "../secret/seal.ts";
import { SecretStore } from "../secret/store.ts";
import { Vault } from "../secret/vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { Redacted } from "../std/redacted.ts";
import { waitFor } from "../std/wait.ts";
import { Dispatcher, type DispatcherDependencies } from "./dispatcher.ts";
import { SchedulerStore } from "./store.ts";

const keyPath = join(tmpdir(), `oci-node-dispatch-${process.pid}-${Date.now()}`);
let postgres: TestPostgres;
let vault: Vault;
let containers: ContainerStore;
let workspaceId: string;
let otherId: string;
let worker: Server;
let dispatcher: Dispatcher;
let dependencies: DispatcherDependencies;
/** What the registries say when they are asked to mint, by repository. */
let registries: Record<string, () => Promise<MintedPull | undefined>>;
/** What was minted before. */
let made: Record<string, MintedPull | "over">;
let taken: ContainerRequest[];
let announced: string[];
let heard: PromiseWithResolvers<void>;
let retracted: PromiseWithResolvers<void>;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const { database } = postgres;
  const workspaces = new WorkspaceStore(database, singleKey(await KeyFile.open(keyPath, { create: true })));
  vault = new Vault({ store: new SecretStore(database), workspaces });
  containers = new ContainerStore(database);
  workspaceId = (await workspaces.ensure("w")).id;
  otherId = (await workspaces.ensure("other")).id;
  const cluster = await TestCluster.make();
  const controlPlane = await cluster.controlPlane();
  worker = await serve({
    host: "127.0.0.1",
    port: 0,
    tls: { identity: await cluster.worker("w1"), clients: "required" },
    interceptors: [],
    routes: (router) => {
      router.service(WorkerService, {
        prepareContainer({ containerId, withdrawn }) {
          announced.push(withdrawn ? `not ${containerId}` : containerId);
          if (withdrawn) retracted.resolve();
          heard.resolve();
          return {};
        },
        startContainer({ request }) {
          if (request !== undefined) taken.push(request);
          return {};
        },
      });
    },
  });
  const store = new SchedulerStore(database);
  await new WorkerIdentityStore(database).join({
    workerId: "w1",
    publicKeySha256: "k",
    name: "worker",
    tokenId: crypto.randomUUID(),
    joinedFrom: "127.0.0.1",
    certificateSerial: "1",
    certificateNotAfter: new Date(Date.now() + 60_000),
  });
  await store.register({
    id: "w1",
    name: "worker",
    address: worker.url,
    bootPublicKey: (await generateBootKey()).publicKey,
    bootNonce: "boot",
    cpuMillis: 10_000,
    memoryBytes: 1e9,
    platform: "linux/amd64",
    version: "0",
    requestVersion: 1,
  });
  dependencies = {
    schedulerId: "s1",
    store,
    containers,
    images: new ImageStore(database),
    vault,
    workers: new WorkerClients(() => controlPlane),
    workspaceNameOf: async (id) => (id === workspaceId ? "w" : "other"),
    registry: {
      mintPull: ({ repository }: Reference, _, signal) =>
        waitFor(registries[repository]?.() ?? Promise.resolve(undefined), signal),
      mintedPull: ({ repository }) => made[repository],
    },
    providersOf: async () => ({}),
    defaultProvider: async () => undefined,
    deliveryOf: async () => "minted",
    grantLifeOf: async () => 15 * 60_000,
    noteUse: () => undefined,
  };
  dispatcher = new Dispatcher(dependencies);
}, 60_000);
beforeEach(() => {
  taken = [];
  announced = [];
  heard = Promise.withResolvers();
  retracted = Promise.withResolvers();
  registries = {};
  made = {};
});
afterAll(async () => {
  await worker.close();
  await postgres.end();
  await rm(keyPath);
}, 60_000);

/** Queued containers of an image with a secret. */
async function queuedMany(repository: string, count: number, workspace: string): Promise<string[]> {
  const imageId = await insertImage(postgres.database, workspace);
  const value = marshalCredentials(
    "ghcr.io",
    "basic",
    credentialMap({ USERNAME: "robot", PASSWORD: "the robot's password" }),
  );
  const { id, name } = await vault.create({ workspaceId: workspace, name: `s-${imageId}`, value });
  const facts = {
    repository,
    manifestDigest: `sha256:${repository}`,
    credentialSecretName: name,
    credentialSecretId: id,
  };
  await postgres.database.query((db) => db.update(images).set(facts).where(eq(images.id, imageId)));
  const wanted = {
    reference: "r",
    command: [],
    env: {},
    network: "none" as const,
    options: defaultOptions,
    eager: false,
  };
  const spec = { ...wanted, workspaceId: workspace, imageId, cpuMillis: 0, memoryBytes: 0 };
  const made = await Promise.all(Array.from({ length: count }, () => containers.create(spec)));
  return made.map(({ id }) => id);
}

async function queued(repository: string, workspace = workspaceId): Promise<string> {
  const [id = ""] = await queuedMany(repository, 1, workspace);
  return id;
}

const where = { registry: "ghcr.io", repository: "o/r" };
const minted = async (): Promise<MintedPull> => ({
  authorization: { kind: "bearer", token: new Redacted("t1") },
  validUntil: new Date(Date.now() + 300_000),
  scope: "pull team/app",
  proved: { manifest: "sha256:team/app", at: new Date() },
  provedAt: new Date(),
});

test("a container is handed over with what was minted, and its row and events say so", async () => {
  registries = { "team/app": minted };
  const id = await queued("team/app");
  await dispatcher.round();
  await dispatcher.idle();
  expect(taken).toMatchObject([
    { containerId: id, workspaceName: "w", imageCredential: { scope: "pull team/app" } },
  ]);
  expect(taken[0]?.imageCredential?.delivery).toBe(CredentialDelivery.MINTED);
  const row = await containers.find(id);
  expect(row).toMatchObject({
    state: "scheduled",
    imageCredential: { delivery: "minted", secretVersion: 1 },
  });
  const [event] = (await containers.events(id)).filter(({ kind }) => kind === "credential");
  expect(event?.message).toContain("short-lived");
  expect(event?.fields).toMatchObject({ delivery: "minted", version: "1" });
  expect(JSON.stringify([row, await containers.events(id)])).not.toContain("the robot's password");
});

test("a refusal at minting fails the container by name and the worker hears of nothing", async () => {
  const next = "Check the user name.";
  registries = {
    refused: () => Promise.reject(new RegistryError("unauthorized", "ghcr.io refuses", where, { next })),
    expired: () => Promise.reject(new CredentialError("expired", "the keys have expired")),
  };
  const [refused, expired] = [await queued("refused"), await queued("expired")];
  await dispatcher.round();
  await dispatcher.idle();
  expect(taken).toEqual([]);
  expect(await containers.find(refused)).toMatchObject({
    state: "failed",
    reason: "ghcr.io refuses. Check the user name.",
    imageCredential: undefined,
  });
  expect(await containers.find(expired)).toMatchObject({ state: "failed", reason: "the keys have expired" });
});

test("a key service that opens no secret fails the container by name", async () => {
  const { database } = postgres;
  const refuses: Keyring = {
    ...singleKey(await KeyFile.open(keyPath)),
    async key() {
      throw new SecretError("key_refused", "the key is disabled", { next: "Enable it." });
    },
  };
  const workspaces = new WorkspaceStore(database, refuses);
  const closed = new Vault({ store: new SecretStore(database), workspaces });
  const id = await queued("team/app");
  const own = new Dispatcher({ ...dependencies, schedulerId: "s4", vault: closed });
  await own.round();
  await own.idle();
  expect(taken).toEqual([]);
  expect(await containers.find(id)).toMatchObject({
    state: "failed",
    reason: "the key is disabled. Enable it.",
  });
});

test("a registry that is slow to mint keeps only its own containers waiting", async () => {
  const gate = Promise.withResolvers<MintedPull>();
  registries = { slow: () => gate.promise, "team/app": minted };
  const slow = await queued("slow");
  await dispatcher.round();
  const quick = await queued("team/app");
  await dispatcher.round();
  while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve));
  expect(taken.map(({ containerId }) => containerId)).toEqual([quick]);
  gate.resolve(await minted());
  await dispatcher.idle();
  expect(taken.map(({ containerId }) => containerId)).toEqual([quick, slow]);
});

test("a worker is told of a container while its authorization is asked for, and whether that proved access", async () => {
  const gate = Promise.withResolvers<MintedPull>();
  registries = { slow: () => gate.promise, "team/app": minted };
  const slow = await queued("slow");
  await dispatcher.round();
  await heard.promise;
  expect(announced).toEqual([slow]);
  expect(taken).toEqual([]);
  gate.resolve(await minted());
  await dispatcher.idle();
  const quick = await queued("team/app");
  await dispatcher.round();
  await dispatcher.idle();
  expect(taken.map(({ containerId, accessProved }) => [containerId, accessProved])).toEqual([
    // That was another manifest.
    [slow, false],
    [quick, true],
  ]);
});

test("a worker that was told of a container hears that it is not coming when nothing can be minted", async () => {
  const gate = Promise.withResolvers<MintedPull>();
  registries = { slow: () => gate.promise };
  const slow = await queued("slow");
  await dispatcher.round();
  await heard.promise;
  gate.reject(new RegistryError("denied", "ghcr.io refuses", where));
  await dispatcher.idle();
  await retracted.promise;
  expect(announced).toEqual([slow, `not ${slow}`]);
  expect(taken).toEqual([]);
});

test("a workspace whose registry is silent keeps no other waiting, however many containers it queues", async () => {
  const gate = Promise.withResolvers<MintedPull>();
  registries = { silent: () => gate.promise, "team/app": minted };
  const many = await queuedMany("silent", 150, workspaceId);
  const quick = await queued("team/app", otherId);
  while (taken.length === 0 && (await dispatcher.round()));
  while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve));
  expect(taken.map(({ containerId }) => containerId)).toEqual([quick]);
  gate.resolve(await minted());
  await dispatcher.idle();
  expect(taken.length).toBeGreaterThan(1);
  expect(many).toEqual(expect.arrayContaining(taken.slice(1).map(({ containerId }) => containerId)));
  await Promise.all(many.map((id) => containers.transition(id, {}, "failed", {}).catch(() => undefined)));
});

test("an image that its worker knows is handed over without asking the registry, however long ago it was asked", async () => {
  registries = { known: minted };
  await queued("known");
  await dispatcher.round();
  await dispatcher.idle();
  registries = { known: () => Promise.reject(new Error("was asked")) };
  made = { known: await minted() };
  await queued("known");
  await dispatcher.round();
  await dispatcher.idle();
  made = { known: "over" };
  const id = await queued("known");
  await dispatcher.round();
  await dispatcher.idle();
  expect(taken).toHaveLength(3);
  expect(taken.map(({ imageCredentials }) => imageCredentials === "")).toEqual([false, false, true]);
  expect(taken.at(-1)?.imageCredential?.delivery).toBe(CredentialDelivery.MINTED);
  const [event] = (await containers.events(id)).filter(({ kind }) => kind === "credential");
  expect(event?.message).toContain("when something of the image is missing");
  made = {};
  const unknown = await queued("unknown");
  await dispatcher.round();
  await dispatcher.idle();
  expect((await containers.find(unknown))?.imageCredential).toMatchObject({ delivery: "sealed" });
});

test("a scheduler that ends waits for no registry, and leaves the container to the next", async () => {
  registries = { hanging: () => new Promise(() => undefined) };
  const id = await queued("hanging");
  await dispatcher.round();
  await dispatcher.close();
  expect(taken).toEqual([]);
  expect((await containers.find(id))?.state).toBe("scheduled");
});

test("nothing is placed on a worker of an earlier version, which never joined", async () => {
  const store = new SchedulerStore(postgres.database);
  const certified = await store.worker("w1");
  if (certified === undefined) throw new Error("there is no worker");
  await store.register({ ...certified, id: "w0", address: "http://127.0.0.1:1" });
  const id = await queued("cold");
  // The other has more to do, and the image no more than this one: it would be chosen.
  expect((await store.worker("w0"))?.containers).toBe(0);
  await dispatcher.round();
  await dispatcher.idle();
  expect(await containers.find(id)).toMatchObject({ state: "scheduled", workerId: "w1", attempt: 1 });
});

test("a container that no worker can take now says once what it waits for", async () => {
  const id = await queued("team/app");
  const own = new Dispatcher({ ...dependencies, schedulerId: "s-waits" });
  const waits = async () =>
    (await containers.events(id)).filter(({ kind }) => kind === "queue").map(({ message }) => message);
  const looks = async () => {
    await postgres.database.query((db) => db.update(rows).set({ leaseUntil: null }).where(eq(rows.id, id)));
    await own.round();
    await own.idle();
  };
  const set = (facts: object) =>
    postgres.database.query((db) => db.update(workers).set(facts).where(eq(workers.id, "w1")));
  await set({ state: "lost" });
  await looks();
  await looks();
  await set({ state: "ready", requestVersion: 0 });
  await postgres.database.query((db) =>
    db.update(rows).set({ spec: sql`spec || '{"network":"private"}'` }).where(eq(rows.id, id)),
  );
  await looks();
  const former =
    "every worker that could take it is of an earlier version, which would leave out some of what the container is run with: upgrade it";
  expect(await waits()).toEqual(["waits: no worker is ready", `waits: ${former}`]);
  await set({ requestVersion: 1 });
  await looks();
  expect(await containers.find(id)).toMatchObject({ state: "scheduled", workerId: "w1" });
});

test("a worker that is revoked while the credential is asked for gets nothing", async () => {
  const { database } = postgres;
  const store = new SchedulerStore(database);
  const gate = Promise.withResolvers<MintedPull>();
  registries = { late: () => gate.promise };
  const id = await queued("late");
  const own = new Dispatcher({ ...dependencies, schedulerId: "s3" });
  await own.round();
  await heard.promise;
  await store.revoke("w1");
  gate.resolve(await minted());
  await own.idle();
  expect(taken).toEqual([]);
  expect(await containers.find(id)).toMatchObject({ state: "pending", imageCredential: undefined });
});
