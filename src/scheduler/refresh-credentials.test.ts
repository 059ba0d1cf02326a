import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { HandlerContext } from "@connectrpc/connect";
import { eq } from "drizzle-orm";
import { CodeStore } from "../container/code-store.ts";
import { HousekeepingStore } from "../container/housekeeping-store.ts";
import { ContainerStore } from "../container/store.ts";
import { fromWireTime } from "../container/wire-service.ts";
import { marshalCredentials } from "../credential/marshal.ts";
import { credentialMap } from "../credential/value.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage } from "../db/rows.test-kit.ts";
import { images } from "../db/schema.ts";
import type { RefreshImageCredentialsResponse } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { ImageStore } from "../image/store.ts";
import type { MintedPull } from "../registry/mint.ts";
import { KeyFile } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { type BootKey, generateBootKey } from "../secret/seal.ts";
import { SecretStore } from "../secret/store.ts";
import { Vault } from "../secret/vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import type { Redacted } from "../std/redacted.ts";
import { schedulerService } from "./service.ts";
import { SchedulerStore } from "./store.ts";
import { undemandingContainer } from "./worker-rows.test-kit.ts";

let server: TestPostgres;
let vault: Vault;
let workspaceId: string;
let service: ReturnType<typeof schedulerService>;
let store: SchedulerStore;
let containers: ContainerStore;
let bootKey: BootKey;
let minted: MintedPull | undefined;
let delivery: "minted" | "sealed";
const keyPath = join(tmpdir(), `oci-node-refresh-${process.pid}-${Date.now()}`);
const workerId = "w1";
const bootNonce = "boot 2";

beforeAll(async () => {
  server = await startTestPostgres();
  const { database } = server;
  const workspaces = new WorkspaceStore(database, singleKey(await KeyFile.open(keyPath, { create: true })));
  vault = new Vault({ store: new SecretStore(database), workspaces });
  store = new SchedulerStore(database);
  containers = new ContainerStore(database);
  service = schedulerService({
    codes: new CodeStore(database),
    store,
    containers,
    housekeeping: new HousekeepingStore(database),
    images: new ImageStore(database),
    vault,
    registry: { mintPull: async () => minted, mintedPull: () => undefined },
    providersOf: async () => ({}),
    defaultProvider: async () => undefined,
    deliveryOf: async () => delivery,
    grantLifeOf: async () => 15 * 60_000,
    noteUse: () => undefined,
  });
  workspaceId = (await workspaces.ensure("w")).id;
  bootKey = await generateBootKey();
}, 60_000);
beforeEach(async () => {
  minted = undefined;
  delivery = "sealed";
  await store.register({
    id: workerId,
    name: "worker",
    address: "http://127.0.0.1:1",
    bootPublicKey: bootKey.publicKey,
    bootNonce,
    cpuMillis: 1000,
    memoryBytes: 1000,
    platform: "linux/amd64",
    version: "0",
    requestVersion: 1,
  });
});
afterAll(async () => {
  await server.end();
  await rm(keyPath);
}, 60_000);

/** A container that runs on the worker, of an image with or without a secret. */
async function running(secretName?: string): Promise<{ containerId: string; attempt: number }> {
  const imageId = await insertImage(server.database, workspaceId);
  if (secretName !== undefined) {
    const secret = await vault.create({ workspaceId, name: secretName, value: basicValue("old") });
    const named = { credentialSecretName: secretName, credentialSecretId: secret.id };
    await server.database.query((db) => db.update(images).set(named).where(eq(images.id, imageId)));
  }
  const container = await containers.create(undemandingContainer(workspaceId, imageId));
  const placed = await store.place(container, workerId, 60_000);
  const { attempt = 0 } = placed?.container ?? {};
  for (const state of ["preparing", "running"] as const)
    await containers.transition(container.id, { attempt, workerId }, state);
  return { containerId: container.id, attempt };
}

/** A secret's value. */
function basicValue(password: string): Redacted<string> {
  return marshalCredentials("ghcr.io", "basic", credentialMap({ USERNAME: "robot", PASSWORD: password }));
}

async function refresh(request: object): Promise<RefreshImageCredentialsResponse> {
  const whole = { workerId, bootNonce, ...request };
  return (await service.refreshImageCredentials(
    whole as never,
    {} as HandlerContext,
  )) as RefreshImageCredentialsResponse;
}

const refusal = (request: object) => refresh(request).catch((error: unknown) => error);

test("gives the secret as it is now, sealed to the boot that asks", async () => {
  const { containerId, attempt } = await running("ghcr");
  await vault.update(workspaceId, "ghcr", basicValue("new"));
  const fresh = await refresh({ containerId, attempt });
  expect(fresh).toMatchObject({ imageReference: "ghcr.io/o/r@sha256:m", credentialsAbsentReason: "" });
  const { requestId } = fresh;
  const expiresAt = fromWireTime(fresh.credentialsExpireAt) ?? new Date(0);
  const context = { requestId, containerId, workerId, bootNonce, expiresAt };
  expect((await bootKey.open(fresh.imageCredentials, context)).expose()).toBe(basicValue("new").expose());
  expect(fresh.imageCredential).toMatchObject({ secretName: "ghcr", secretVersion: 2, type: "basic" });
  expect((await containers.find(containerId))?.imageCredential).toMatchObject({ delivery: "sealed" });
});

test("says that an image has no secret, or that the secret is gone", async () => {
  expect(await refresh(await running())).toMatchObject({ imageCredentials: "", credentialsAbsentReason: "" });
  const container = await running("passing");
  await vault.remove(workspaceId, "passing", { force: true });
  const fresh = await refresh(container);
  expect(fresh.imageCredentials).toBe("");
  expect(fresh.credentialsAbsentReason).toContain("passing is gone");
});

test("gives nothing to an earlier boot, for another attempt, for a stranger's container, or for one that has ended", async () => {
  const { containerId, attempt } = await running();
  expect(await refusal({ containerId, attempt, bootNonce: "boot 1" })).toMatchObject({ code: "stale_boot" });
  expect(await refusal({ containerId, attempt, workerId: "w2" })).toMatchObject({ code: "stale_boot" });
  const its = { code: "not_its_container" };
  expect(await refusal({ containerId, attempt: attempt + 1 })).toMatchObject(its);
  expect(await refusal({ containerId: "c-unknown", attempt })).toMatchObject(its);
  await containers.transition(containerId, { attempt, workerId }, "exited", { exitCode: 0 });
  expect(await refusal({ containerId, attempt })).toMatchObject(its);
});
