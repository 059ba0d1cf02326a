import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { noise } from "./odd-image.ts";
import { TestProxy } from "./proxy.ts";

const blob = noise(64 * 1024 * 1024);
let server: Bun.Server<undefined>;
let proxy: TestProxy;

beforeAll(async () => {
  server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      const range = request.headers.get("range")?.match(/bytes=(\d+)-(\d+)/);
      if (range === null || range === undefined) return new Response(blob as Uint8Array<ArrayBuffer>);
      const part = blob.slice(Number(range[1]), Number(range[2]) + 1);
      return new Response(part, {
        status: 206,
        headers: { "content-range": `bytes ${range[1]}-${range[2]}/${blob.length}` },
      });
    },
  });
  proxy = await TestProxy.start(`127.0.0.1:${server.port}`);
});
afterAll(async () => {
  await proxy.stop();
  await server.stop(true);
});
beforeEach(async () => {
  await proxy.setFaults();
  await proxy.resetStats();
});

const get = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`http://${proxy.host}${path}`, { headers, signal: AbortSignal.timeout(3000) });

test("passes bodies unchanged and counts requests and bytes", async () => {
  const whole = await (await get("/blob")).bytes();
  expect(Buffer.compare(whole, blob)).toBe(0);
  const part = await get("/blob", { range: "bytes=100-199" });
  expect(Buffer.compare(await part.bytes(), blob.subarray(100, 200))).toBe(0);
  const stats = await proxy.stats();
  expect(stats.requests).toBe(2);
  expect(stats.bytes).toBeGreaterThan(blob.length);
  expect(stats.log).toEqual(["GET /blob", "GET /blob bytes=100-199"]);
});

test("carries more than 1 Gbit/s when it is not limited", async () => {
  const started = performance.now();
  await (await get("/blob")).bytes();
  expect((blob.length * 8) / (performance.now() - started) / 1e6).toBeGreaterThan(1);
});

test("delays each request and caps the rate over all connections", async () => {
  await using slow = await TestProxy.start(`127.0.0.1:${server.port}`, {
    delayMs: 20,
    bytesPerSecond: 125_000_000,
  });
  const started = performance.now();
  const bodies = [0, 1].map(async () => (await fetch(`http://${slow.host}/blob`)).bytes());
  await Promise.all(bodies);
  const seconds = (performance.now() - started) / 1000;
  expect(seconds).toBeGreaterThan(0.95 * ((2 * blob.length) / 125_000_000));
  const small = performance.now();
  await (await fetch(`http://${slow.host}/blob`, { headers: { range: "bytes=0-9" } })).bytes();
  expect(performance.now() - small).toBeGreaterThanOrEqual(19);
});

test("answers a status, a limited number of times", async () => {
  await proxy.setFaults({
    match: "^GET /blob",
    times: 1,
    action: { kind: "status", status: 503, headers: { "retry-after": "1" } },
  });
  const refused = await get("/blob");
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "1"]);
  await refused.text();
  expect((await get("/other", { range: "bytes=0-1" })).status).toBe(206);
});

test("truncates, corrupts, resets, stalls, hangs and ignores ranges", async () => {
  await proxy.setFaults(
    { match: "/truncated", action: { kind: "truncate", afterBytes: 1000 } },
    { match: "/corrupt", action: { kind: "corrupt", atByte: 5000 } },
    { match: "/reset", action: { kind: "reset" } },
    { match: "/stalled", action: { kind: "stall", afterBytes: 10 } },
    { match: "/hanging", action: { kind: "hang" } },
    { match: "/whole", action: { kind: "no_range" } },
  );
  await expect(get("/truncated").then((answer) => answer.bytes())).rejects.toThrow();
  const corrupt = await (await get("/corrupt")).bytes();
  expect(corrupt.findIndex((byte, index) => byte !== blob[index])).toBe(5000);
  await expect(get("/reset")).rejects.toThrow();
  await expect(get("/stalled").then((answer) => answer.bytes())).rejects.toThrow();
  await expect(get("/hanging")).rejects.toThrow();
  const whole = await get("/whole", { range: "bytes=0-9" });
  expect(whole.status).toBe(200);
  await whole.bytes();
});
