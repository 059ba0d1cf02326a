import { afterAll, beforeAll, expect, test } from "bun:test";
import { TestLink } from "./link.ts";
import { noise } from "./odd-image.ts";

const blob = noise(32 * 1024 * 1024);
let server: Bun.Server<undefined>;
let link: TestLink;

beforeAll(async () => {
  server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      if (request.method === "POST") return new Response(await request.bytes());
      const range = request.headers.get("range")?.match(/bytes=(\d+)-(\d+)/);
      if (range === null || range === undefined) return new Response(blob as Uint8Array<ArrayBuffer>);
      const part = blob.slice(Number(range[1]), Number(range[2]) + 1);
      return new Response(part, { status: 206 });
    },
  });
  link = await TestLink.start(`127.0.0.1:${server.port}`, { delayMs: 0, bytesPerSecond: 0 });
});
afterAll(async () => {
  await link.stop();
  await server.stop(true);
});

const get = (path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(`http://${link.host}${path}`, { ...init, signal: AbortSignal.timeout(10_000) });

test("passes bodies both ways unchanged and counts requests and bytes", async () => {
  await link.resetStats();
  expect(Buffer.compare(await (await get("/blob")).bytes(), blob)).toBe(0);
  const parts = [0, 1, 2, 3, 4, 5].map(async (part) => {
    const from = part * 1_000_000;
    const answer = await get("/blob", { headers: { range: `bytes=${from}-${from + 999_999}` } });
    expect(Buffer.compare(await answer.bytes(), blob.subarray(from, from + 1_000_000))).toBe(0);
  });
  await Promise.all(parts);
  const body = blob.slice(0, 300_000);
  const echo = await get("/echo", { method: "POST", body });
  expect(Buffer.compare(await echo.bytes(), body)).toBe(0);
  const stats = await link.stats();
  expect(stats.requests).toBe(8);
  expect(stats.bytes).toBeGreaterThan(blob.length + 6_300_000);
  expect(stats.log[0]).toBe("GET /blob");
  expect(stats.log.filter((line) => line === "GET /blob bytes=3000000-3999999")).toHaveLength(1);
});

test("delays each request and caps the rate over all connections, as set last", async () => {
  await link.set({ delayMs: 30, bytesPerSecond: 125_000_000 });
  const started = performance.now();
  await Promise.all([0, 1].map(async () => (await get("/blob")).bytes()));
  const megabytesPerSecond = (2 * blob.length) / 1e3 / (performance.now() - started);
  expect(megabytesPerSecond).toBeLessThan(128);
  const small = performance.now();
  await (await get("/blob", { headers: { range: "bytes=0-9" } })).bytes();
  expect(performance.now() - small).toBeGreaterThanOrEqual(29);
  await link.set({ delayMs: 0, bytesPerSecond: 0 });
});

test("goes on when a client leaves in the middle of an answer", async () => {
  await link.set({ delayMs: 0, bytesPerSecond: 10_000_000 });
  const abort = new AbortController();
  const left = fetch(`http://${link.host}/blob`, { signal: abort.signal }).then((answer) => answer.bytes());
  while ((await link.stats()).bytes < 1_000_000) await Promise.resolve();
  abort.abort();
  await expect(left).rejects.toThrow();
  await link.set({ delayMs: 0, bytesPerSecond: 0 });
  expect((await (await get("/blob")).bytes()).length).toBe(blob.length);
});
