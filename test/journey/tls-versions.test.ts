import { afterAll, beforeAll, expect, test } from "bun:test";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect, type TLSSocket } from "node:tls";
import { createClient } from "@connectrpc/connect";
import { TestCluster } from "../../src/cluster/cluster.test-kit.ts";
import { schedulerName } from "../../src/cluster/names.ts";
import { ImageService } from "../../src/gen/oci_node/v1/image_service_pb.ts";
import { fetchPinned } from "../../src/registry/pinned-fetch.ts";
import { fetchUnverified } from "../../src/rpc/fetch-unverified.ts";
import { type Server, serve } from "../../src/rpc/server.ts";
import { clusterTransport, transportTo } from "../../src/rpc/transport.ts";
import { OldTlsServer } from "../kit/old-tls.ts";
import { TestAuthority } from "../kit/tls-server.ts";

let old: OldTlsServer;
let newer: OldTlsServer;
let authority: TestAuthority;
const { signal } = new AbortController();

beforeAll(async () => {
  [old, newer] = await Promise.all([
    OldTlsServer.start("tls1_1", schedulerName),
    OldTlsServer.start("tls1_2", schedulerName),
  ]);
  authority = await TestAuthority.make();
}, 60_000);
afterAll(async () => {
  await Promise.all([old.stop(), newer.stop(), authority.discard()]);
});

const said = (work: Promise<unknown>) =>
  work.then(
    () => "spoken",
    (error: unknown) =>
      `${(error as { code?: unknown }).code} ${(error as Error).message} ${String((error as Error).cause)}`,
  );
const isVersion = /PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|protocol version/i;

/** Every way in which we ask somebody over TLS. */
const clients: Readonly<Record<string, (port: number, ca: string) => Promise<unknown>>> = {
  "the command line to a gateway": (port, ca) =>
    createClient(
      ImageService,
      transportTo({ url: `https://127.0.0.1:${port}`, token: "t", ca: [ca] }),
    ).listImages({}),
  "the roles to each other": (port, ca) =>
    createClient(
      ImageService,
      clusterTransport({
        url: `https://127.0.0.1:${port}`,
        serverName: schedulerName,
        tls: { authorities: ca },
      }),
    ).listImages({}),
  "a host that wants to join": (port) => fetchUnverified(`https://127.0.0.1:${port}/`, signal),
  "a node to a registry, a cloud or a webhook": (port, ca) =>
    fetchPinned(
      { address: "127.0.0.1", authorities: [ca], proxy: undefined, connect: undefined },
      {
        method: "GET",
        url: new URL(`https://${schedulerName}:${port}/`),
        headers: {},
        userAgent: "test",
        freshConnection: true,
        signal,
      },
    ),
};

for (const [name, ask] of Object.entries(clients)) {
  test(`${name} speaks no TLS 1.1`, async () => {
    const [oldCa, newerCa] = await Promise.all([old, newer].map(({ caFile }) => readFile(caFile, "utf8")));
    const atOld = await said(ask(old.port, oldCa as string));
    expect(atOld).not.toBe("spoken");
    // The same question to the same program with TLS 1.2 comes further than the handshake.
    expect(await said(ask(newer.port, newerCa as string))).not.toMatch(isVersion);
    expect(await said(ask(newer.port, newerCa as string))).not.toBe(atOld);
  });
}

test("the old server that our clients refuse serves who still speaks its version", async () => {
  expect(await old.takesItsOwn("tls1_1")).toBe(true);
});

test("no server of ours speaks TLS 1.1, to whomever", async () => {
  const cluster = await TestCluster.make();
  const identity = await cluster.controlPlane();
  const { certFile, keyFile } = await authority.filesFor("gateway.test");
  const common = { host: "127.0.0.1", port: 0, interceptors: [], routes: () => undefined };
  const servers: Server[] = [
    await serve({ ...common, tls: { certFile, keyFile } }),
    await serve({ ...common, tls: { identity, clients: "asked" } }),
    await serve({ ...common, tls: { identity, clients: "required" } }),
  ];
  try {
    const { cert, key } = identity.secureContext();
    for (const { port } of servers) {
      const handshake = async (maxVersion: "TLSv1.1" | "TLSv1.2"): Promise<string> => {
        const options = {
          port,
          host: "127.0.0.1",
          rejectUnauthorized: false,
          cert,
          key,
          ALPNProtocols: ["h2"],
        };
        const socket: TLSSocket = connect({ ...options, minVersion: "TLSv1", maxVersion });
        try {
          await once(socket, "secureConnect");
          return socket.getProtocol() ?? "none";
        } finally {
          socket.destroy();
        }
      };
      expect(await said(handshake("TLSv1.1"))).toMatch(isVersion);
      expect(await handshake("TLSv1.2")).toBe("TLSv1.2");
    }
    // What they renew to is no weaker.
    for (const server of servers.slice(1)) server.renew(await cluster.controlPlane());
    for (const { port } of servers.slice(1)) {
      const socket = connect({
        port,
        host: "127.0.0.1",
        rejectUnauthorized: false,
        minVersion: "TLSv1",
        maxVersion: "TLSv1.1",
      });
      expect(await said(once(socket, "secureConnect"))).toMatch(isVersion);
      socket.destroy();
    }
  } finally {
    for (const server of servers) await server.close();
  }
});
