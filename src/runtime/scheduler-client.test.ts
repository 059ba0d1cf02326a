import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { type AddressInfo, connect, createServer, type Server as NetServer, type Socket } from "node:net";
import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { ContainerError } from "../container/error.ts";
import { DbError } from "../db/error.ts";
import { SchedulerService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { translateErrors } from "../rpc/error.ts";
import { type Server, serve } from "../rpc/server.ts";
import { SchedulerError } from "../scheduler/error.ts";
import { SchedulerClient } from "./scheduler-client.ts";

let scheduler: Server;
/** Between worker and scheduler, to be cut. */
let link: NetServer;
let open: Set<Socket>;
let client: SchedulerClient;
/** What becomes of each report, the first first; afterwards all are taken. */
let fates: (() => void | Promise<void>)[];
let reports = 0;

beforeAll(async () => {
  const cluster = await TestCluster.make();
  scheduler = await serve({
    host: "127.0.0.1",
    port: 0,
    tls: { identity: await cluster.controlPlane(), clients: "required" },
    interceptors: [translateErrors],
    routes: (router) => {
      router.service(SchedulerService, {
        async reportContainer() {
          reports += 1;
          await fates.shift()?.();
          return {};
        },
        async fetchCode({ position }) {
          await fates.shift()?.();
          return { data: new Uint8Array([position]), pieces: 2 };
        },
      });
    },
  });
  open = new Set();
  link = createServer((from) => {
    const to = connect(scheduler.port, "127.0.0.1");
    for (const end of [from, to]) open.add(end.on("error", () => undefined));
    from.pipe(to).pipe(from);
  });
  await new Promise<void>((resolve) => link.listen(0, "127.0.0.1", resolve));
  const identity = await cluster.worker("w1");
  client = new SchedulerClient({
    url: `https://127.0.0.1:${(link.address() as AddressInfo).port}`,
    member: { identity, joinAgain: async () => undefined },
    onRevoked: () => undefined,
    containerIds: () => [],
    signal: new AbortController().signal,
    facts: {
      workerId: "w1",
      name: "worker",
      address: "https://127.0.0.1:1",
      bootPublicKey: new Uint8Array(32),
      bootNonce: "boot",
      cpuMillis: 1000,
      memoryBytes: 1e9,
      platform: "linux/amd64",
      version: "0",
      requestVersion: 1,
    },
  });
});
beforeEach(() => {
  fates = [];
  reports = 0;
});
afterAll(async () => {
  for (const end of open) end.destroy();
  link.close();
  await scheduler.close();
});

const report = () => client.report({ containerId: "c1", attempt: 1, state: "running" });

test("a report whose connection is reset is made again: nothing was said of the container", async () => {
  fates = [
    () => {
      for (const end of open) end.resetAndDestroy();
    },
  ];
  expect(await report()).toBe(true);
  expect(reports).toBe(2);
});

test("code is asked for again when the connection is reset, and not when it is refused or nobody wants it any more", async () => {
  const fetch = (signal = new AbortController().signal) => client.fetchCode("c1", "d", 1, signal);
  fates = [
    () => {
      for (const end of open) end.resetAndDestroy();
    },
  ];
  expect(await fetch()).toMatchObject({ data: new Uint8Array([1]), pieces: 2 });
  fates = [
    () => {
      throw new SchedulerError("no_code", "it is not here any more", { next: "Deploy it again." });
    },
  ];
  const failure = (signal?: AbortSignal) => fetch(signal).catch((error: unknown) => error);
  expect(await failure()).toMatchObject({
    code: "code",
    message: "the code could not be fetched: it is not here any more",
    next: "Deploy it again.",
  });
  const leaving = new AbortController();
  fates = [
    () => {
      leaving.abort(new Error("the container was stopped"));
      throw new DbError("unavailable", "the database is away");
    },
  ];
  expect(await failure(leaving.signal)).toMatchObject({ message: "the container was stopped" });
});

test("a report that the database gave way with is made again", async () => {
  fates = [
    () => {
      throw new DbError("serialization", "the database gave way to another transaction");
    },
  ];
  expect(await report()).toBe(true);
  expect(reports).toBe(2);
});

test.each(["not_found", "stale_attempt", "conflict"] as const)(
  "a report that the scheduler answers by %s is of no container of this worker's",
  async (code) => {
    fates = [
      () => {
        throw new ContainerError(code, "it is another's");
      },
    ];
    expect(await report()).toBe(false);
    expect(reports).toBe(1);
  },
);
