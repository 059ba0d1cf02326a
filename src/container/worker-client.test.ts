import { afterAll, beforeAll, expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { type ServeOptions, type Server, serve } from "../rpc/server.ts";
import { streamApart, WorkerClients, workerFailure } from "./worker-client.ts";

let cluster: TestCluster;
let clients: WorkerClients;
const servers: Server[] = [];
let calls = 0;

async function start(tls?: ServeOptions["tls"]): Promise<string> {
  const server = await serve({
    host: "127.0.0.1",
    port: 0,
    ...(tls === undefined ? {} : { tls }),
    interceptors: [],
    routes: (router) => {
      router.service(WorkerService, {
        getTransfer() {
          calls += 1;
          return {};
        },
        async *streamLogs() {
          yield { data: new Uint8Array(32 * 1024 * 1024) };
        },
      });
    },
  });
  servers.push(server);
  return server.url;
}

beforeAll(async () => {
  cluster = await TestCluster.make();
  const identity = await cluster.controlPlane();
  clients = new WorkerClients(() => identity);
});
afterAll(async () => {
  for (const server of servers) await server.close();
});

const codeOf = async (call: Promise<unknown>) =>
  await call.then(
    () => undefined,
    (error: unknown) => ConnectError.from(error).code,
  );
const at = (address: string) => clients.to({ id: "w1", address, bootNonce: address });

test("a worker's address without TLS is not called: nobody there has to be the worker", async () => {
  expect(await codeOf(at(await start()).getTransfer({ containerId: "c" }))).toBe(Code.Unavailable);
  const other = await start({ identity: await cluster.worker("w2"), clients: "required" });
  expect(await codeOf(at(other).getTransfer({ containerId: "c" }))).not.toBeUndefined();
  expect(calls).toBe(0);
  const own = await start({ identity: await cluster.worker("w1"), clients: "required" });
  expect(await codeOf(at(own).getTransfer({ containerId: "c" }))).toBeUndefined();
  expect(calls).toBe(1);
});

test("a worker of an earlier version is told from a gateway that knows nothing of what is asked", async () => {
  const url = await start({ identity: await cluster.worker("w1"), clients: "required" });
  const worker = { id: "w1", address: url, bootNonce: url };
  const { signal } = new AbortController();
  // What is not served answers as a version does that never heard of it.
  const failed = await at(url)
    .killContainer({ containerId: "c" })
    .catch((error: unknown) => workerFailure(error, worker, "signalling c", signal));
  const code = "worker_earlier";
  expect(failed).toMatchObject({
    code,
    message: expect.stringContaining("signalling c: worker w1 is of an earlier version"),
  });
  const inputs = (async function* () {})();
  const stream = streamApart(clients, worker, "exec", signal, (client) =>
    client.execContainer(inputs, { signal }),
  );
  expect(await stream.next().catch((error: unknown) => error)).toMatchObject({ code });
});

test("a worker fills nobody's memory with its answer", async () => {
  const url = await start({ identity: await cluster.worker("w1"), clients: "required" });
  const read = async () => {
    for await (const _ of at(url).streamLogs({ containerId: "c" })) throw new Error("it was taken");
  };
  expect(await codeOf(read())).toBe(Code.ResourceExhausted);
});
