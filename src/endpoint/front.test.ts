import { afterEach, describe, expect, test } from "bun:test";
import type { IncomingMessage } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import {
  FrontScene,
  insiderToken,
  strangerToken,
  textOf,
  viewerToken,
  type Where,
} from "./front.test-kit.ts";

const scenes: FrontScene[] = [];
afterEach(async () => {
  for (const scene of scenes.splice(0)) await scene.close();
});

async function open(where: Where = "local"): Promise<FrontScene> {
  const scene = await FrontScene.open(where);
  scenes.push(scene);
  return scene;
}

const errorOf = async (response: Response) =>
  ((await response.json()) as { error: { code: string; message: string; id?: string } }).error;

async function bytesOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

for (const where of ["local", "remote"] as const) {
  describe(`a container that is ${where}`, () => {
    test("gets method, path, query, fields and body as they are, and its answer comes back as it is", async () => {
      const scene = await open(where);
      const container = await scene.container("c-1", async (request, response) => {
        const body = await bytesOf(request);
        response.writeHead(207, "Many", ["X-One", "1", "X-One", "2", "Content-Type", "application/json"]);
        response.end(JSON.stringify({ ...pick(request), body: body.toString() }));
      });
      scene.route([container]);
      const socket = await scene.raw(
        [
          "PATCH /endpoint/hello/a/../%2e//b;c?q=%20&&r HTTP/1.1",
          "Host: api.example:99",
          `Authorization: Bearer ${insiderToken}`,
          "X-Twice: a",
          "x-twice: b",
          "Connection: keep-alive, X-Hop",
          "X-Hop: 1",
          "TE: trailers",
          "Forwarded: for=6.6.6.6",
          "X-Forwarded-For: 6.6.6.6",
          "X_Forwarded_For: 6.6.6.6",
          "Oci-Node-Error: exception",
          "Content-Length: 5",
          "",
          "hello",
        ].join("\r\n"),
      );
      const text = await textOf(socket, /\r\n0\r\n/);
      expect(text).toStartWith("HTTP/1.1 207 Many\r\nX-One: 1\r\nX-One: 2\r\n");
      const got = JSON.parse(text.slice(text.indexOf("\r\n\r\n")).match(/\{.*\}/s)?.[0] ?? "");
      expect(got).toMatchObject({ method: "PATCH", url: "/a/../%2e//b;c?q=%20&&r", body: "hello" });
      expect(got.raw.filter((_: string, at: number) => at % 2 === 0)).toEqual([
        "Host",
        "X-Twice",
        "x-twice",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Prefix",
        "X-Request-Id",
        "Content-Length",
        "Connection",
      ]);
      expect(got.raw).toContain("127.0.0.1");
      expect(got.raw).not.toContain("6.6.6.6");
      expect(got.raw.filter((value: string) => value === "api.example:99")).toHaveLength(2);
    });

    test("gets and gives fields byte by byte, whatever they hold", async () => {
      const scene = await open(where);
      let got = "";
      const port = await scene.program((socket) =>
        socket.once("data", (piece) => {
          got = piece.toString("latin1");
          socket.write(
            Buffer.from(
              "HTTP/1.1 200 \xc3\xa9\r\nX-Name: \xe9\xc3\xa9\r\nContent-Length: 2\r\n\r\n\xc3\xa9",
              "latin1",
            ),
          );
        }),
      );
      scene.route([scene.listening("c-1", port)]);
      const head = `GET /endpoint/hello HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${insiderToken}\r\nX-Name: \xe9\xc3\xa9\r\n\r\n`;
      const text = await textOf(await scene.raw(Buffer.from(head, "latin1")), /\xc3\xa9$/);
      expect(text).toStartWith("HTTP/1.1 200 \xc3\xa9\r\nX-Name: \xe9\xc3\xa9\r\n");
      expect(got).toContain("X-Name: \xe9\xc3\xa9\r\n");
    });

    test("gives an event to the client before there is another one, and sees that the client has left", async () => {
      const scene = await open(where);
      const left = Promise.withResolvers<void>();
      const more = Promise.withResolvers<void>();
      const container = await scene.container("c-1", async (_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.flushHeaders();
        response.once("close", left.resolve);
        await more.promise;
        response.write("data: 1\n\n");
      });
      scene.route([container]);
      const client = new AbortController();
      const response = await scene.get("/events", { signal: client.signal });
      expect(response.headers.get("content-type")).toBe("text/event-stream");
      more.resolve();
      const reader = (response.body as ReadableStream<Uint8Array>).getReader();
      expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("data: 1\n\n");
      client.abort();
      await left.promise;
      expect(scene.front.dispatcher.demand("d-1")).toEqual({ queued: 0, inFlight: 0 });
    });

    test("is given a large body no faster than it reads it, and the whole of it", async () => {
      const scene = await open(where);
      const begun = Promise.withResolvers<void>();
      const go = Promise.withResolvers<void>();
      const container = await scene.container("c-1", async (request, response) => {
        begun.resolve();
        await go.promise;
        response.end(String((await bytesOf(request)).length));
      });
      const size = 96 * 1024 * 1024;
      scene.route([], { bodyBytesMax: size });
      let sent = 0;
      const piece = new Uint8Array(1024 * 1024);
      const body = new ReadableStream<Uint8Array>({
        type: "direct",
        async pull(controller: { write(piece: Uint8Array): void; flush(): Promise<number>; close(): void }) {
          for (; sent < size; sent += piece.length) {
            controller.write(piece);
            await controller.flush();
          }
          controller.close();
        },
      } as never);
      const before = process.memoryUsage.rss();
      const answer = scene.get("", { method: "POST", body });
      // While there is no container, and while that does not read.
      await until(() => scene.front.dispatcher.demand("d-1").queued === 1);
      await untilStill(() => sent);
      expect(sent).toBeLessThan(32 * 1024 * 1024);
      scene.route([container], { bodyBytesMax: size });
      await begun.promise;
      await untilStill(() => sent);
      expect(process.memoryUsage.rss() - before).toBeLessThan(64 * 1024 * 1024);
      go.resolve();
      expect(await (await answer).text()).toBe(String(size));
    });

    test("that dies in the middle of its answer breaks the client's: nobody takes a half for the whole", async () => {
      const scene = await open(where);
      const container = await scene.container("c-1", (request, response) => {
        if (request.url === "/before") return void response.destroy();
        response.writeHead(200, request.url === "/length" ? { "content-length": "100" } : {});
        response.write("part", () => setTimeout(() => response.destroy(), 5));
      });
      scene.route([container]);
      for (const path of ["/length", "/chunks"]) {
        const socket = await scene.raw(
          `GET /endpoint/hello${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${insiderToken}\r\n\r\n`,
        );
        const text = await textOf(socket, /\r\n0\r\n/);
        expect(text).toEndWith("<closed>");
        expect(text).toContain("part");
      }
      const response = await scene.get("/before", { method: "POST", body: "x" });
      expect(response.status).toBe(502);
      expect(await errorOf(response)).toMatchObject({ code: "broken" });
    });

    test("that answers what nobody can say again is told of, and nobody else notices", async () => {
      const scene = await open(where);
      const heads = ["099 Low", "000 None", "200 \u0001", "999 High", "200 Fine"].map(
        (status) => `HTTP/1.1 ${status}\r\nContent-Length: 2\r\n\r\nok`,
      );
      const server = createServer((socket) =>
        socket.on("error", () => undefined).once("data", () => socket.end(heads.shift() ?? "")),
      );
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      scene.route([scene.listening("c-1", (server.address() as AddressInfo).port)]);
      const statuses: number[] = [];
      for (const _ of [...heads]) {
        const response = await scene.get();
        statuses.push(response.status);
        if (response.status === 502) expect((await errorOf(response)).code).toBe("broken");
      }
      expect(statuses).toEqual([502, 502, 502, 999, 200]);
      expect(scene.forwarder.inFlight("c-1")).toBe(0);
      server.close();
    });

    test("that has as many requests as it may, drains or is gone is passed by", async () => {
      const scene = await open(where);
      const finish = Promise.withResolvers<void>();
      const slow = await scene.container(
        "c-1",
        async (_, response) => {
          await finish.promise;
          response.end("one");
        },
        { concurrency: 1 },
      );
      // The worker holds the limit, also where a gateway does not know what another has sent there.
      scene.route([slow], { concurrency: 5 });
      const first = scene.get();
      await until(() => scene.forwarder.inFlight("c-1") === 1);
      const second = scene.get("", { method: "POST", body: "two" });
      await until(() => scene.front.dispatcher.demand("d-1").queued === 1);
      const other = await scene.container("c-2", async (request, response) =>
        response.end((await bytesOf(request)).toString()),
      );
      scene.route([slow, other], { concurrency: 5 });
      expect(await (await second).text()).toBe("two");
      const drained = scene.forwarder.drain("c-1", 5_000);
      expect(await (await scene.get("", { method: "POST", body: "three" })).text()).toBe("three");
      finish.resolve();
      await drained;
      expect(await (await first).text()).toBe("one");
      const gone = { ...other, containerId: "c-0" };
      scene.route([gone, other]);
      expect(await (await scene.get("", { method: "POST", body: "four" })).text()).toBe("four");
    });
  });
}

describe("who may call", () => {
  test("an endpoint that is not public is not there for others", async () => {
    const scene = await open();
    scene.route([await scene.container("c-1", (_, response) => response.end("hello"))]);
    const ask = async (name: string, token?: string) => {
      const response = await fetch(`${scene.gateway.url}/endpoint/${name}`, {
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      });
      return [response.status, (await response.text()).replaceAll(name, "NAME").replace(/r-\w+/, "ID")];
    };
    expect((await ask("hello", insiderToken))[0]).toBe(200);
    expect((await ask("hello", viewerToken))[0]).toBe(403);
    expect(await ask("hello")).toEqual(await ask("absent"));
    expect(await ask("hello", strangerToken)).toEqual(await ask("absent", strangerToken));
    expect([(await ask("hello"))[0], (await ask("hello", strangerToken))[0]]).toEqual([401, 404]);
    expect((await ask("hello.other", insiderToken))[0]).toBe(404);
    expect((await ask("hello", `ocn_${"x".repeat(43)}`))[0]).toBe(401);
    expect((await ask("Hello!", insiderToken))[0]).toBe(404);
  });

  test("a token of the cluster never reaches a container; another credential does", async () => {
    const scene = await open();
    const container = await scene.container("c-1", (request, response) =>
      response.end(request.headers.authorization ?? "none"),
    );
    scene.route([container], { public: true });
    const ask = async (authorization: string) =>
      await (await fetch(scene.url(), { headers: { authorization } })).text();
    expect(await ask(`Bearer ${insiderToken}`)).toBe("none");
    expect(await ask("Bearer of-the-program-itself")).toBe("Bearer of-the-program-itself");
    expect(await ask("Basic abc")).toBe("Basic abc");
    expect(await ask(`Bearer\t${insiderToken}`)).toBe("none");
    const twice = `Authorization: Basic abc\r\nAuthorization: Bearer ${insiderToken}\r\n`;
    const socket = await scene.raw(`GET /endpoint/hello HTTP/1.1\r\nHost: a\r\n${twice}\r\n`);
    expect(await textOf(socket, /\r\n\r\n.+/)).toEndWith("Basic abc");
  });

  test("the traceback of a function is for its own workspace; others get an id", async () => {
    const scene = await open();
    const container = await scene.container("c-1", (request, response) => {
      response.writeHead(500, { "oci-node-error": "exception", "oci-node-forward": "absent" });
      response.end(JSON.stringify({ error: { traceback: `secret of ${request.headers["x-request-id"]}` } }));
    });
    scene.route([container], { public: true });
    const inside = await scene.get();
    expect([inside.status, inside.headers.get("oci-node-error")]).toEqual([500, "exception"]);
    expect(await inside.text()).toContain("secret of r-");
    const outside = await fetch(scene.url());
    expect(outside.status).toBe(500);
    const error = await errorOf(outside);
    expect(error).toEqual({
      code: "handler_failed",
      message: "the handler failed",
      id: expect.any(String) as never,
    });
    expect(outside.headers.get("x-request-id")).toBe(error.id ?? null);
  });
});

describe("waiting", () => {
  test("a request waits for the first container, in the order in which it came, and no longer than its time", async () => {
    const scene = await open();
    scene.route([], { requestTimeoutMs: 3_000, queueMax: 3, concurrency: 1 });
    const order: string[] = [];
    const ask = async (path: string) => {
      const response = await scene.get(path);
      order.push(`${path} ${response.status}`);
      return response;
    };
    const asked = [];
    for (const path of ["/1", "/2", "/3"]) {
      asked.push(ask(path));
      await until(() => scene.front.dispatcher.demand("d-1").queued === asked.length);
    }
    const full = await scene.get("/4");
    expect([full.status, full.headers.get("retry-after")]).toEqual([503, "1"]);
    expect((await errorOf(full)).code).toBe("queue_full");
    const container = await scene.container("c-1", (_, response) => response.end());
    scene.route([container], { queueMax: 3, concurrency: 1 });
    await Promise.all(asked);
    expect(order).toEqual(["/1 200", "/2 200", "/3 200"]);
    expect(scene.routing.demands.at(-1)).toEqual({ deploymentId: "d-1", queued: 0, inFlight: 0 });

    scene.route([], { requestTimeoutMs: 100 });
    const late = await scene.get();
    expect(late.status).toBe(504);
    expect((await errorOf(late)).message).toBe("no container was free for the request within 0.1 s");
    scene.route([await scene.container("c-2", () => undefined)], { requestTimeoutMs: 100 });
    expect((await errorOf(await scene.get())).message).toBe("the request took longer than 0.1 s");
    const slow = await scene.raw(
      `POST /endpoint/hello HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${insiderToken}\r\nContent-Length: 5\r\n\r\n`,
    );
    expect(await textOf(slow, /\}$/m)).toContain("the request's body did not come within 0.1 s");
    expect(scene.front.dispatcher.demand("d-1")).toEqual({ queued: 0, inFlight: 0 });
  });

  test("goes over to the deployment that takes the requests by now, and ends when there is none", async () => {
    const scene = await open();
    scene.route([]);
    const [first, second] = [scene.get("", { method: "POST", body: "kept" }), scene.get()];
    await until(() => scene.front.dispatcher.demand("d-1").queued === 2);
    const container = await scene.container("c-2", async (request, response) =>
      response.end((await bytesOf(request)).toString()),
    );
    scene.route([container], {}, { deploymentId: "d-2" });
    scene.routing.remove("d-1");
    expect(await (await first).text()).toBe("kept");
    expect((await second).status).toBe(200);
    scene.route([], {}, { deploymentId: "d-2" });
    const third = scene.get();
    await until(() => scene.front.dispatcher.demand("d-2").queued === 1);
    scene.routing.remove("d-2");
    expect((await third).status).toBe(404);
  });

  test("is of no use where containers do not come up: the workspace is told why, others are not", async () => {
    const scene = await open();
    scene.route([], { public: true });
    const inside = scene.get();
    await until(() => scene.front.dispatcher.demand("d-1").queued === 1);
    scene.route([], { public: true }, { problem: "no module named app" });
    expect((await errorOf(await inside)).message).toContain("no module named app");
    const outside = await fetch(scene.url());
    expect(outside.status).toBe(502);
    expect(await outside.text()).not.toContain("module");
  });

  test("a client that leaves is not waited for", async () => {
    const scene = await open();
    scene.route([]);
    const client = new AbortController();
    const asked = scene.get("", { signal: client.signal }).catch(() => "left");
    await until(() => scene.front.dispatcher.demand("d-1").queued === 1);
    client.abort();
    expect(await asked).toBe("left" as never);
    await until(() => scene.front.dispatcher.demand("d-1").queued === 0);
  });
});

function pick(request: IncomingMessage) {
  return { method: request.method, url: request.url, raw: request.rawHeaders };
}

/** Waits until a condition holds. */
async function until(holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 5_000; !holds(); ) {
    if (performance.now() > end) throw new Error("it did not come about within 5 s");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Waits until a number has not changed for a while. */
async function untilStill(read: () => number): Promise<void> {
  for (let last = -1; last !== read(); ) {
    last = read();
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
}
