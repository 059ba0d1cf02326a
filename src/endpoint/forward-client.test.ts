import { afterEach, expect, test } from "bun:test";
import * as https from "node:https";
import { PassThrough } from "node:stream";
import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { isControlPlane, workerName } from "../cluster/names.ts";
import { type Server, serve } from "../rpc/server.ts";
import { answerForward } from "../runtime/requests/forward-service.ts";
import { Forwarder } from "../runtime/requests/forwarder.ts";
import { type BodyCarrier, RequestBody } from "../std/request-body.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { ForwardClients } from "./forward-client.ts";

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function workerServer(identity: TlsIdentity): Promise<Server> {
  const server = await serve({
    host: "127.0.0.1",
    port: 0,
    tls: { identity, clients: "required" },
    interceptors: [],
    routes: () => undefined,
    first: answerForward(new Forwarder(), isControlPlane),
  });
  servers.push(server);
  return server;
}

/** What a worker answers to a request for a container that is not there. */
function ask(server: Server, workerId: string, identity: TlsIdentity): Promise<number | undefined> {
  const { cert, key, ca } = identity.secureContext();
  return new Promise((resolve, reject) => {
    const request = https.request(`${server.url}/forward/c-1/`, {
      ...{ cert, key, ca, servername: workerName(workerId), agent: false },
    });
    request.once("response", (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.once("error", reject);
    request.end();
  });
}

function forward(clients: ForwardClients, worker: { id: string; address: string }) {
  const carrier = Object.assign(new PassThrough(), { headers: {}, httpVersionMajor: 1 });
  return clients.to({ ...worker, bootNonce: "b" }).forward({
    containerId: "c-1",
    method: "POST",
    path: "/",
    headers: ["Host", "a"],
    body: new RequestBody(carrier as unknown as BodyCarrier),
    signal: new AbortController().signal,
  });
}

test("a worker gives requests to containers for gateways alone: not for another worker, not for a stranger", async () => {
  const cluster = await TestCluster.make();
  const server = await workerServer(await cluster.worker("w1"));
  expect(await ask(server, "w1", await cluster.controlPlane())).toBe(503);
  expect(await ask(server, "w1", await cluster.worker("w2"))).toBe(403);
  const other = await TestCluster.make();
  const stranger = await other.controlPlane();
  const trusting = { ...(await cluster.controlPlane()).secureContext(), ...keyOf(stranger) };
  await expect(ask(server, "w1", { secureContext: () => trusting } as TlsIdentity)).rejects.toThrow();
});

test("a gateway sends nothing to who has not the certificate of the worker that is meant, or speaks no TLS", async () => {
  const cluster = await TestCluster.make();
  const identity = await cluster.controlPlane();
  const clients = new ForwardClients(
    () => identity,
    () => undefined,
  );
  const server = await workerServer(await cluster.worker("w1"));
  const address = server.url;
  expect(await forward(clients, { id: "w1", address })).toEqual({ kind: "refused", why: "absent" });
  expect(await forward(clients, { id: "w2", address })).toEqual({ kind: "refused", why: "unreachable" });
  expect(() => clients.to({ id: "w3", address: address.replace("https", "http"), bootNonce: "b" })).toThrow(
    "is not https",
  );
  clients.close();
});

function keyOf(identity: TlsIdentity) {
  const { cert, key } = identity.secureContext();
  return { cert, key };
}
