import { afterEach, beforeEach, expect, test } from "bun:test";
import { type ClientHttp2Session, connect } from "node:http2";
import { FrontScene, insiderToken } from "./front.test-kit.ts";

let scene: FrontScene;
let session: ClientHttp2Session;
beforeEach(async () => {
  scene = await FrontScene.open();
  session = connect(scene.gateway.url);
  session.on("error", () => undefined);
});
afterEach(async () => {
  session.destroy();
  await scene.close();
});

interface Got {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Buffer;
  /** RFC 9113, 7; 0: it ended well. */
  readonly code: number;
}

function ask(path: string, method = "GET", body?: readonly Buffer[]): Promise<Got> {
  const stream = session.request({
    ":path": `/endpoint/hello${path}`,
    ":method": method,
    authorization: `Bearer ${insiderToken}`,
  });
  return new Promise((resolve) => {
    let headers: Record<string, unknown> = {};
    const pieces: Buffer[] = [];
    stream.on("response", (head) => {
      headers = head as Record<string, unknown>;
    });
    stream.on("data", (piece: Buffer) => pieces.push(piece));
    stream.on("error", () => undefined);
    stream.once("close", () =>
      resolve({
        status: Number(headers[":status"] ?? 0),
        headers,
        body: Buffer.concat(pieces),
        code: stream.rstCode ?? 0,
      }),
    );
    for (const piece of body ?? []) stream.write(piece);
    stream.end();
  });
}

test("a container does not see that its caller speaks HTTP/2, and many of them share a connection", async () => {
  const container = await scene.container("c-1", async (request, response) => {
    let bytes = 0;
    for await (const piece of request) bytes += (piece as Buffer).length;
    response.writeHead(200, ["Set-Cookie", "a=1", "Set-Cookie", "b=2", "Connection", "close"]);
    response.end(
      `${request.method} ${request.url} ${request.headers.host} ${bytes} ${request.rawHeaders.join()}`,
    );
  });
  scene.route([container]);
  const got = await ask("/a?b", "POST", [Buffer.alloc(300_000), Buffer.alloc(1_700_000)]);
  expect(got.status).toBe(200);
  expect(got.headers["set-cookie"]).toEqual(["a=1", "b=2"]);
  expect(got.body.toString()).toStartWith(`POST /a?b ${new URL(scene.gateway.url).host} 2000000 Host,`);
  expect(got.body.toString()).not.toContain(":path");
  const bare = await ask("", "GET");
  expect(bare.body.toString()).not.toMatch(/content-length|transfer-encoding/i);
  const head = await ask("", "HEAD");
  expect([head.status, head.body.length]).toEqual([200, 0]);
  const many = await Promise.all(Array.from({ length: 200 }, (_, at) => ask(`/${at}`)));
  expect(many.filter(({ status, code }) => status !== 200 || code !== 0)).toEqual([]);
});

test("an answer that breaks off is no whole one, and the connection goes on", async () => {
  const container = await scene.container("c-1", (request, response) => {
    if (request.url === "/whole") return void response.end("whole");
    response.write("part", () => response.destroy());
  });
  scene.route([container]);
  const broken = await ask("/");
  expect(broken.body.toString()).toBe("part");
  expect(broken.code).not.toBe(0);
  expect((await ask("/whole")).body.toString()).toBe("whole");
});

test("bodies that are refused do not use their connection up", async () => {
  scene.route([await scene.container("c-1", (_, response) => response.end("hello"))], { bodyBytesMax: 1000 });
  for (let at = 0; at < 20; at++) {
    const refused = await ask("", "POST", [Buffer.alloc(200_000)]);
    expect(refused.status).toBe(413);
  }
  scene.routing.remove("d-1");
  for (let at = 0; at < 20; at++) expect((await ask("", "POST", [Buffer.alloc(200_000)])).status).toBe(404);
  scene.route([await scene.container("c-2", (_, response) => response.end("hello"))]);
  expect((await ask("", "POST", [Buffer.alloc(200_000)])).body.toString()).toBe("hello");
});

test("a client that resets its request is seen", async () => {
  const left = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const container = await scene.container("c-1", (_, response) => {
    response.once("close", left.resolve);
    begun.resolve();
  });
  scene.route([container]);
  const stream = session.request({
    ":path": "/endpoint/hello",
    authorization: `Bearer ${insiderToken}`,
  });
  stream.on("error", () => undefined);
  await begun.promise;
  stream.close();
  await left.promise;
  expect(scene.front.dispatcher.demand("d-1").inFlight).toBe(0);
});
