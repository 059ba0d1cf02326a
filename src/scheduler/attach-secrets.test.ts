import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AuditEvent } from "../audit/audit.ts";
import type { Container } from "../container/container.ts";
import { defaultOptions, type SecretUse } from "../container/options.ts";
import { ContainerStore } from "../container/store.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage } from "../db/rows.test-kit.ts";
import { openContainerSecrets } from "../secret/container-secrets.ts";
import { KeyFile } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { opaqueValue } from "../secret/opaque.ts";
import { type BootKey, generateBootKey } from "../secret/seal.ts";
import { SecretStore } from "../secret/store.ts";
import { Vault } from "../secret/vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { attachSecrets } from "./attach-secrets.ts";
import { SchedulerStore } from "./store.ts";
import type { Worker } from "./worker.ts";
import { registeringWorker, undemandingContainer } from "./worker-rows.test-kit.ts";

const keyPath = join(tmpdir(), `oci-node-attach-secrets-${randomUUID()}`);
let postgres: TestPostgres;
let vault: Vault;
let containers: ContainerStore;
let workspaceId: string;
let imageId: string;
let bootKey: BootKey;
let worker: Worker;
let noted: AuditEvent[];

beforeAll(async () => {
  postgres = await startTestPostgres();
  const { database } = postgres;
  const workspaces = new WorkspaceStore(database, singleKey(await KeyFile.open(keyPath, { create: true })));
  vault = new Vault({ store: new SecretStore(database), workspaces });
  containers = new ContainerStore(database);
  workspaceId = (await workspaces.ensure("w")).id;
  imageId = await insertImage(database, workspaceId);
  bootKey = await generateBootKey();
  const store = new SchedulerStore(database);
  await store.register({ ...registeringWorker("w1", "one"), bootPublicKey: bootKey.publicKey });
  worker = (await store.worker("w1"))!;
});
afterAll(async () => {
  await postgres.end();
  await rm(keyPath, { force: true });
});

const queue = (secrets: readonly SecretUse[]): Promise<Container> =>
  containers.create({
    ...undemandingContainer(workspaceId, imageId),
    options: { ...defaultOptions, secrets },
  });

async function handOver(container: Container) {
  noted = [];
  const context = { requestId: randomUUID(), expiresAt: new Date(Date.now() + 60_000) };
  const attach = attachSecrets({ vault, noteUse: (event) => noted.push(event) }, container, worker);
  const sealed = await attach(context);
  const { bootNonce } = worker;
  const bound = { ...context, containerId: container.id, workerId: "w1", bootNonce };
  return { sealed, opened: await openContainerSecrets(bootKey, sealed, bound, container.options.secrets) };
}

test("secrets are read as they are at each hand-over, sealed for the worker, and each is written down", async () => {
  const text = "a value that nobody sees";
  const made = await vault.create({
    workspaceId,
    name: "db",
    value: opaqueValue(Buffer.from(text)),
    type: "opaque",
    principal: "",
  });
  const container = await queue([
    { secretName: "db", variable: "DB" },
    { secretName: "db", path: "/run/db" },
  ]);
  const first = await handOver(container);
  expect(first.opened.variables()).toEqual({ DB: text });
  expect(first.sealed).not.toContain(Buffer.from(text).toString("base64").slice(0, 20));
  expect(noted).toMatchObject([
    {
      action: "secret.use",
      workspaceId,
      target: { kind: "secret", id: made.id, name: "db" },
      fields: { container: container.id, worker: "w1", version: "1" },
    },
  ]);
  expect(JSON.stringify([noted, await containers.find(container.id)])).not.toContain(text);
  await vault.update(workspaceId, "db", opaqueValue(Buffer.from("rotated")));
  expect((await handOver(container)).opened.variables()).toEqual({ DB: "rotated" });
  expect(noted[0]?.fields).toMatchObject({ version: "2" });
});

test("without secrets nothing is sealed or written down; one that is missing fails the hand-over by its name", async () => {
  const plain = await handOver(await queue([]));
  expect([plain.sealed, noted]).toEqual(["", []]);
  const lost = handOver(await queue([{ secretName: "lost", variable: "A" }]));
  await expect(lost).rejects.toMatchObject({
    code: "not_found",
    message: "the workspace has no secret lost, which the container is to be given",
  });
  expect(noted).toEqual([]);
});
