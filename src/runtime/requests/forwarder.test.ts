import { afterEach, describe, expect, test } from "bun:test";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { PassThrough } from "node:stream";
import { type BodyCarrier, RequestBody } from "../../std/request-body.ts";
import { type Forwarded, Forwarder } from "./forwarder.ts";
import { bringUp, untilListening } from "./serving.ts";

const servers: Server[] = [];
const sockets = new Set<Socket>();
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers.splice(0)) server.close();
  sockets.clear();
});

/** A program that gets to see every connection. */
async function program(onConnection: (socket: Socket) => void): Promise<number> {
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    onConnection(socket);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** A program that says this to the first request of each connection. */
const says = (text: string) =>
  program((socket) => socket.once("data", () => socket.end(Buffer.from(text, "latin1"))));

function forwarderTo(port: number, concurrency = 10): Forwarder {
  const forwarder = new Forwarder();
  forwarder.add("c-1", { host: "127.0.0.1", port, concurrency });
  return forwarder;
}

function send(
  forwarder: Forwarder,
  method = "GET",
  signal = new AbortController().signal,
): Promise<Forwarded> {
  const carrier = Object.assign(new PassThrough(), { headers: {}, httpVersionMajor: 1 });
  const body = new RequestBody(carrier as unknown as BodyCarrier);
  const headers = ["Host", "a"];
  return forwarder.forward({ containerId: "c-1", method, path: "/", headers, body, signal });
}

async function textOf(done: Forwarded): Promise<string> {
  if (done.kind === "refused") return `refused: ${done.why}`;
  const pieces: Buffer[] = [];
  for await (const piece of done.answer) pieces.push(piece as Buffer);
  return `${done.answer.statusCode} ${Buffer.concat(pieces)}`;
}

const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => "answered",
    (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
  );

describe("what a program answers", () => {
  test.each([
    ["something else than HTTP", "SSH-2.0-OpenSSH_9\r\n\r\n"],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    [
      "a length and chunks",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ["a head without end", `HTTP/1.1 200 OK\r\nX: ${"x".repeat(100_000)}`],
    ["a switch of protocols", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"],
    ["hints and hints, and at last one", `${"HTTP/1.1 103 A\r\n\r\n".repeat(1_000)}HTTP/1.1 204 B\r\n\r\n`],
    ["nothing", ""],
  ])("is no answer where it is %s", async (_, text) => {
    const forwarder = forwarderTo(await says(text));
    expect(await codeOf(send(forwarder))).toStartWith("broken: ");
    expect(forwarder.inFlight("c-1")).toBe(0);
  });

  test("comes as it is where it is odd: until the end of the connection, after a hint, of HTTP/1.0", async () => {
    for (const text of [
      "HTTP/1.1 299 Hm\r\n\r\nhello",
      "HTTP/1.0 299 Hm\r\n\r\nhello",
      "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 299 \r\nContent-Length: 5\r\n\r\nhello",
    ]) {
      const forwarder = forwarderTo(await says(text));
      expect(await textOf(await send(forwarder))).toBe("299 hello");
      expect(forwarder.inFlight("c-1")).toBe(0);
    }
  });
});

describe("connections", () => {
  const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

  test("that a program closes as idle take no request with them that may be sent twice", async () => {
    let connections = 0;
    const port = await program((socket) => {
      connections += 1;
      socket.once("data", () => {
        socket.write(hello);
        socket.once("data", () => socket.destroy());
      });
    });
    const forwarder = forwarderTo(port);
    expect(await textOf(await send(forwarder))).toBe("200 hello");
    expect(await textOf(await send(forwarder))).toBe("200 hello");
    expect(connections).toBe(2);
    // Nobody knows whether the program began with it.
    expect(await textOf(await send(forwarder, "POST"))).toBe("200 hello");
    expect(await codeOf(send(forwarder, "POST"))).toStartWith("broken: ");
  });

  test("are kept for a second, and no answer is cut off that takes longer", async () => {
    const closed = Promise.withResolvers<number>();
    const begun = performance.now();
    let connections = 0;
    const port = await program((socket) => {
      connections += 1;
      if (connections === 1) {
        socket.on("data", () => socket.write(hello));
        socket.once("close", () => closed.resolve(performance.now() - begun));
      } else {
        socket.once("data", () => void closed.promise.then(() => socket.write(hello)));
      }
    });
    const forwarder = forwarderTo(port);
    const [one, other] = [send(forwarder), send(forwarder)];
    expect(await textOf(await one)).toBe("200 hello");
    expect(await closed.promise).toBeLessThan(3_000);
    expect(await textOf(await other)).toBe("200 hello");
  });

  test("that nobody accepts leave a request for another container", async () => {
    const port = await says("");
    servers.splice(0)[0]?.close();
    expect(await textOf(await send(forwarderTo(port)))).toBe("refused: unreachable");
  });

  test("end with a caller who leaves", async () => {
    const closed = Promise.withResolvers<void>();
    const caller = new AbortController();
    const port = await program((socket) => {
      socket.once("data", () => caller.abort());
      socket.once("close", closed.resolve);
    });
    const forwarder = forwarderTo(port);
    expect(await codeOf(send(forwarder, "GET", caller.signal))).toStartWith("broken: ");
    await closed.promise;
    expect(forwarder.inFlight("c-1")).toBe(0);
  });
});

test("who leaves waits for the answers that are on their way, and for no longer than is allowed; others are not begun", async () => {
  const asked: Socket[] = [];
  const port = await program((socket) => socket.once("data", () => asked.push(socket)));
  const forwarder = forwarderTo(port);
  const [first, second] = [send(forwarder), send(forwarder)];
  while (asked.length < 2) await Bun.sleep(1);
  await forwarder.leave(1);
  expect(await textOf(await send(forwarder))).toBe("refused: unreachable");
  const left = forwarder.leave(60_000);
  for (const socket of asked) socket.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup");
  expect([await textOf(await first), await textOf(await second)]).toEqual(["200 up", "200 up"]);
  await left;
  expect(forwarder.inFlight("c-1")).toBe(0);
});

describe("a program that is to listen", () => {
  const never = new Promise<never>(() => undefined);
  const serving = { startupTimeoutMs: 5_000, concurrency: 1 };

  test("gets requests from when it does", async () => {
    const port = await says("");
    servers.splice(0)[0]?.close();
    const forwarder = new Forwarder();
    const up = bringUp(forwarder, { id: "c-1", exited: never }, { ...serving, port });
    expect(await textOf(await send(forwarder))).toBe("refused: absent");
    const server = createServer((socket) =>
      socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup")),
    );
    servers.push(server);
    server.listen(port, "127.0.0.1");
    expect(await up).toBeUndefined();
    expect(await textOf(await send(forwarder))).toBe("200 up");
  });

  test("is given up after its time, or when it has ended", async () => {
    const port = await says("");
    servers.splice(0)[0]?.close();
    const forwarder = new Forwarder();
    const late = { ...serving, port, startupTimeoutMs: 50 };
    expect(await bringUp(forwarder, { id: "c-1", exited: never }, late)).toBe(
      `its port ${port} did not answer within 0.05 s; does the program listen on that port, and on all addresses (0.0.0.0) rather than 127.0.0.1?`,
    );
    const ended = bringUp(forwarder, { id: "c-1", exited: Promise.resolve() }, { ...serving, port });
    expect(await ended).toBe(`it ended before its port ${port} answered`);
    const signal = AbortSignal.abort(new Error("left"));
    await expect(untilListening({ host: "127.0.0.1", port }, 1_000, signal)).rejects.toThrow("left");
  });
});
