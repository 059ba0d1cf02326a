import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { TestCluster } from "../../cluster/cluster.test-kit.ts";
import { isControlPlane, workerName } from "../../cluster/names.ts";
import { marshalCredentials } from "../../credential/marshal.ts";
import { credentialMap } from "../../credential/value.ts";
import { type ContainerRequestSchema, WorkerService } from "../../gen/oci_node/v1/worker_service_pb.ts";
import { IndexStore } from "../../index/store.ts";
import type { LazyMounts } from "../../mount/lazy-mount.ts";
import { noise, type TestImage, TestRoom, until } from "../../mount/mount.test-kit.ts";
import { RegistryClient } from "../../registry/client.ts";
import { authenticateCertificate } from "../../rpc/certificate-authentication.ts";
import { translateErrors } from "../../rpc/error.ts";
import { type Server, serve } from "../../rpc/server.ts";
import { clusterTransport } from "../../rpc/transport.ts";
import { generateBootKey, sealTo } from "../../secret/seal.ts";
import { TlsIdentity } from "../../std/tls-identity.ts";
import { noCode } from "../code/handler-code.test-kit.ts";
import { TestHost } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import type { Report } from "../scheduler-client.ts";
import { Worker } from "../worker.ts";
import { workerService } from "../worker-service.ts";
import { AccessGrants } from "./grants.ts";

type Request = MessageInitShape<typeof ContainerRequestSchema>;

let room: TestRoom;
let made: TestImage;
let host: TestHost;
let cluster: TestCluster;
let mounts: LazyMounts;
let runtime: Runtime;
const boots: Boot[] = [];

interface Boot {
  readonly workerId: string;
  readonly bootNonce: string;
  readonly publicKey: Uint8Array;
  readonly reports: Report[];
  readonly server: Server;
  readonly worker: Worker;
}

beforeEach(async () => {
  host = await TestHost.open();
  room = await TestRoom.create();
  made = await room.image([{ one: noise(1000) }]);
  cluster = await TestCluster.make();
  mounts = await room.mounts();
  runtime = await host.runtime();
});
afterEach(async () => {
  for (const { server, worker } of boots.splice(0)) {
    await server.close();
    await worker.close();
  }
  await room.end();
  await host.close();
});

/** A worker with a key of its own, which serves as the role does. */
async function boot(workerId: string, bootNonce: string): Promise<Boot> {
  const bootKey = await generateBootKey();
  const reports: Report[] = [];
  const worker = new Worker({
    bootKey,
    mounts,
    registry: new RegistryClient({ policy: { insecureHosts: new Set(), privateHosts: new Set() } }),
    index: await IndexStore.open(join(room.dir, "index")),
    code: await noCode(room.dir),
    grants: new AccessGrants(),
    backgroundFetch: false,
    traces: false,
    runtime,
    report: async (report) => {
      reports.push(report);
      return true;
    },
    freshAccess: () => Promise.reject(new Error("nobody is asked here")),
  });
  const server = await serve({
    host: "127.0.0.1",
    port: 0,
    tls: { identity: await cluster.worker(workerId), clients: "required" },
    interceptors: [translateErrors, authenticateCertificate({ controlPlane: isControlPlane })],
    routes: (router) => router.service(WorkerService, workerService(worker, { workerId, bootNonce })),
  });
  const made = { workerId, bootNonce, publicKey: bootKey.publicKey, reports, server, worker };
  boots.push(made);
  return made;
}

const at = ({ server, workerId }: Boot, tls: TlsIdentity | { readonly authorities: string }) =>
  createClient(WorkerService, clusterTransport({ url: server.url, serverName: workerName(workerId), tls }));

/** What the scheduler hands over: everything that whoever listened in has captured. */
async function handOver({ workerId, bootNonce, publicKey }: Boot): Promise<Request> {
  const { manifestDigest } = made.opened.index;
  const [containerId, requestId, expiresAt] = ["c1", "r1", new Date(Date.now() + 60_000)];
  const value = marshalCredentials(
    "127.0.0.1:1",
    "basic",
    credentialMap({ USERNAME: "u", PASSWORD: "canary" }),
  );
  return {
    containerId,
    attempt: 1,
    workspaceId: "w",
    imageReference: `127.0.0.1:1/app@${manifestDigest}`,
    manifestDigest,
    indexSha256: made.opened.sha256,
    imageCredentials: await sealTo(publicKey, value, {
      requestId,
      containerId,
      workerId,
      bootNonce,
      expiresAt,
    }),
    requestId,
    credentialsExpireAt: timestampFromDate(expiresAt),
  };
}

/** Why the container of a request ended: the registry is refused by the egress, so none comes further than its credential. */
async function reasonAt(target: Boot, tls: TlsIdentity, request: Request): Promise<string> {
  const before = target.reports.length;
  await at(target, tls).startContainer({ request });
  await until(() => target.reports.slice(before).some(({ state }) => state === "failed"));
  await target.worker.find(request.containerId ?? "")?.done;
  return target.reports.at(-1)?.reason ?? "";
}

test("a hand-over that was captured opens nothing a second time, elsewhere, or for anything else, whoever sends it", async () => {
  const [first, other] = [await boot("w1", "b1"), await boot("w2", "b2")];
  const plane = await cluster.controlPlane();
  const captured = await handOver(first);
  // Opened: what stops it is the registry alone.
  const opened = await reasonAt(first, plane, captured);
  expect(opened).toContain("127.0.0.1:1");
  expect(opened).not.toMatch(/opened before|not sealed for/);

  const later = timestampFromDate(new Date(Date.now() + 600_000));
  const again: readonly (readonly [Boot, Request, RegExp])[] = [
    [first, captured, /were opened before/],
    [first, { ...captured, attempt: 2 }, /were opened before/],
    [first, { ...captured, containerId: "c2" }, /were opened before/],
    [first, { ...captured, requestId: "r2" }, /not sealed for this boot/],
    [first, { ...captured, requestId: "r3", credentialsExpireAt: later }, /not sealed for this boot/],
    [other, captured, /not sealed for this boot/],
    [await boot("w1", "b1 again"), captured, /not sealed for this boot/],
  ];
  for (const [target, request, refused] of again)
    expect(await reasonAt(target, plane, request)).toMatch(refused);
  expect(JSON.stringify(boots.map(({ reports }) => reports))).not.toContain("canary");
}, 60_000);

test("a hand-over is taken from nobody but the control plane of the cluster, and changes nothing before", async () => {
  const target = await boot("w1", "b1");
  const captured = await handOver(target);
  const foreign = await TestCluster.make();
  const authorities = cluster.signer.certificate;
  const believing = (identity: TlsIdentity) => {
    const { cert: certificate, key: privateKey } = identity.secureContext();
    return new TlsIdentity({ certificate, privateKey, authorities });
  };
  const senders = [
    { authorities },
    await cluster.worker("w1"),
    await cluster.worker("w2"),
    believing(await foreign.controlPlane()),
    await cluster.controlPlane(-1_000),
  ];
  for (const tls of senders) {
    const thrown = await at(target, tls)
      .startContainer({ request: captured })
      .then(
        () => "taken",
        (error: unknown) => Code[ConnectError.from(error).code],
      );
    expect(thrown).not.toBe("taken");
  }
  expect(target.reports).toEqual([]);
  expect(target.worker.containerIds()).toEqual([]);
  // Nor does the scheduler give it to whoever else answers at the worker's address.
  const plane = await cluster.controlPlane();
  const elsewhere = createClient(
    WorkerService,
    clusterTransport({ url: target.server.url, serverName: workerName("w2"), tls: plane }),
  );
  await expect(elsewhere.startContainer({ request: captured })).rejects.toThrow();
  expect(target.reports).toEqual([]);
  // It was as good as new all the time.
  expect(await reasonAt(target, plane, captured)).toContain("127.0.0.1:1");
}, 60_000);
