import { afterEach, expect, test } from "bun:test";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { type ServeOptions, type Server, serve } from "./server.ts";

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

/** Answers `/slow` when the connections that are to be closed are closed. */
async function start(over: Promise<unknown>, tls?: ServeOptions["tls"]): Promise<Server> {
  const server = await serve({
    host: "127.0.0.1",
    port: 0,
    idleMs: 100,
    interceptors: [],
    routes: () => undefined,
    ...(tls === undefined ? {} : { tls }),
    first: (request, response) => {
      void (request.url === "/slow" ? over : Promise.resolve()).then(() => response.end("answered"));
      return true;
    },
  });
  servers.push(server);
  return server;
}

const heads = ["", "GET / HTTP/1.1\r\nHost: a", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"];
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/** Of HTTP/2: half of how a connection begins; and all of it, with empty SETTINGS. */
const prefaces = [preface.slice(0, 10), `${preface}\0\0\0\x04\0\0\0\0\0`];
const slow = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";

function closed(socket: Socket): Promise<void> {
  socket.on("error", () => undefined);
  socket.resume();
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

async function say(socket: Socket, text: string): Promise<Socket> {
  await new Promise<void>((resolve) =>
    socket.once("encrypted" in socket ? "secureConnect" : "connect", () => resolve()),
  );
  socket.write(text);
  return socket;
}

test.each(["in cleartext", "over TLS"])(
  "connections %s end on which nothing whole comes; not one that waits for its answer",
  async (how) => {
    const over = Promise.withResolvers<void>();
    const cluster = await TestCluster.make();
    const identity = await cluster.controlPlane();
    const tls = how === "over TLS" ? ({ identity, clients: "asked" } as const) : undefined;
    const { port } = await start(over.promise, tls);
    const dial = () =>
      tls === undefined
        ? connect(port, "127.0.0.1")
        : connectTls(port, "127.0.0.1", { rejectUnauthorized: false, ALPNProtocols: ["http/1.1"] });
    const waiting = await say(dial(), slow);
    const answer = new Promise<string>((resolve) =>
      waiting.once("data", (piece) => resolve(piece.toString())),
    );
    waiting.on("error", () => undefined);
    await Promise.all(heads.map(async (head) => closed(await say(dial(), head))));
    over.resolve();
    expect(await answer).toContain("answered");
    await closed(waiting);
  },
);

test.each(["in cleartext", "over TLS"])(
  "HTTP/2 %s: a connection without a request ends; not one that waits for its answer, or that had one",
  async (how) => {
    const over = Promise.withResolvers<void>();
    const identity = await (await TestCluster.make()).controlPlane();
    const tls = how === "over TLS" ? ({ identity, clients: "asked" } as const) : undefined;
    const { port, url } = await start(over.promise, tls);
    const unverified = { rejectUnauthorized: false, ALPNProtocols: ["h2"] };
    const dial = () =>
      tls === undefined ? connect(port, "127.0.0.1") : connectTls(port, "127.0.0.1", unverified);
    const session = connectHttp2(url, { rejectUnauthorized: false });
    session.on("error", () => undefined);
    const ask = (path: string) => {
      const stream = session.request({ ":path": path });
      return new Promise<string>((resolve) => {
        stream.on("error", () => resolve("broken"));
        stream.on("data", (piece) => resolve(String(piece)));
      });
    };
    const slowly = ask("/slow");
    await Promise.all(prefaces.map(async (text) => closed(await say(dial(), text))));
    over.resolve();
    expect(await slowly).toBe("answered");
    await closed(await say(dial(), prefaces[1] as string));
    expect(await ask("/")).toBe("answered");
    session.destroy();
  },
);
