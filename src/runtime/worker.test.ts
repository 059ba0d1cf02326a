import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { defaultOptions } from "../container/options.ts";
import { IndexStore } from "../index/store.ts";
import type { LazyMounts } from "../mount/lazy-mount.ts";
import { noise, type TestImage, TestRoom, until } from "../mount/mount.test-kit.ts";
import { RegistryClient } from "../registry/client.ts";
import { generateBootKey } from "../secret/seal.ts";
import { noCode } from "./code/handler-code.test-kit.ts";
import type { WorkerContainerRequest } from "./held-container.ts";
import { AccessGrants } from "./image/grants.ts";
import { TestHost } from "./runtime.test-kit.ts";
import type { Report } from "./scheduler-client.ts";
import { Worker } from "./worker.ts";

let room: TestRoom;
let made: TestImage;
let host: TestHost;
let mounts: LazyMounts;
let worker: Worker;
let reports: Report[];
/** What the scheduler says to a report. */
let answer: () => Promise<boolean>;

beforeEach(async () => {
  host = await TestHost.open();
  room = await TestRoom.create();
  made = await room.image([{ one: noise(1000) }]);
  mounts = await room.mounts();
  reports = [];
  worker = new Worker({
    bootKey: await generateBootKey(),
    mounts,
    registry: new RegistryClient({
      policy: { insecureHosts: new Set<string>(), privateHosts: new Set<string>() },
    }),
    index: await IndexStore.open(join(room.dir, "index")),
    code: await noCode(room.dir),
    grants: new AccessGrants(),
    backgroundFetch: false,
    traces: false,
    runtime: await host.runtime(),
    report: (report) => {
      reports.push(report);
      return answer();
    },
    freshAccess: () => Promise.reject(new Error("nobody is asked here")),
  });
});
afterEach(async () => {
  await worker.close();
  await room.end();
  await host.close();
});

function request(attempt: number): WorkerContainerRequest {
  const { manifestDigest } = made.opened.index;
  const containerId = "c1";
  return {
    containerId,
    attempt,
    workspaceId: "w",
    imageReference: `registry.test/app@${manifestDigest}`,
    manifestDigest,
    indexSha256: made.opened.sha256,
    sealedCredentials: "",
    sealContext: { requestId: "r", containerId, workerId: "w1", bootNonce: "b", expiresAt: new Date() },
    absentReason: "",
    credential: undefined,
    command: [],
    env: {},
    cpuMillis: 0,
    memoryBytes: 0,
    network: "none",
    eager: false,
    options: defaultOptions,
    sealedSecrets: "",
    handler: undefined,
    serving: undefined,
    workspaceName: "w",
  };
}

test("a later attempt that is handed over twice while the one before it ends is begun once", async () => {
  const first = Promise.withResolvers<boolean>();
  answer = () => first.promise;
  await worker.start(request(1));
  const both = [worker.start(request(2)), worker.start(request(2))];
  const second = Promise.withResolvers<boolean>();
  answer = () => second.promise;
  first.resolve(false);
  await Promise.all(both);
  expect(reports.map(({ attempt, state }) => [attempt, state])).toEqual([
    [1, "preparing"],
    [2, "preparing"],
  ]);
  second.resolve(false);
  await worker.find("c1")?.done;
});

test("a container that is not coming, or not this worker's any more, leaves nothing of what was prepared for it", async () => {
  worker.prepare(request(1));
  await until(() => mounts.status().length === 1);
  worker.dropPrepared(request(1));
  await until(() => mounts.status().length === 0);

  const told = Promise.withResolvers<boolean>();
  answer = () => told.promise;
  worker.prepare(request(2));
  await worker.start(request(2));
  // What was announced is heard after it was handed over.
  worker.prepare(request(2));
  await until(() => mounts.status().length === 1);
  expect(mounts.status()).toMatchObject([{ users: 1 }]);
  told.resolve(false);
  await until(() => mounts.status().length === 0);
  await worker.find("c1")?.done;
});
