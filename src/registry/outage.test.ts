import { afterAll, describe, expect, test } from "bun:test";
import { anonymousProvider } from "../credential/provider.ts";
import { digestOf } from "../reference/digest.ts";
import { parseReference } from "../reference/reference.ts";
import { RegistryClient } from "./client.ts";
import type { Descriptor } from "./descriptor.ts";
import { noise } from "./image.test-kit.ts";
import { basicProvider } from "./quirks.test-kit.ts";
import {
  type RawReply,
  type RawRequest,
  type RawServer,
  rangeReply,
  startRawServer,
} from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const signal = new AbortController().signal;
const bytes = noise(640_000, 21);
const blob: Descriptor = { mediaType: "layer", digest: digestOf(bytes), size: bytes.length };
const pieceBytes = 10_000;
const servers: RawServer[] = [];
afterAll(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function serve(handle: (request: RawRequest) => RawReply | Promise<RawReply>): Promise<RawServer> {
  const server = await startRawServer(handle);
  servers.push(server);
  return server;
}

/** As it is in production: real time, all limits by default. */
function repositoryOf(host: string, password?: string): Repository {
  const policy = { insecureHosts: new Set([host]), privateHosts: new Set<string>() };
  const provider = password === undefined ? anonymousProvider(host) : basicProvider(host, password);
  return new RegistryClient({ policy }).repository(parseReference(`${host}/acme/app:1`), provider);
}

async function readPiece(repository: Repository, piece: number): Promise<void> {
  const [start, end] = [piece * pieceBytes, (piece + 1) * pieceBytes];
  const got = await repository.openBlob(blob, start, end, signal);
  if (!Buffer.from(got).equals(bytes.subarray(start, end))) throw new Error(`piece ${piece} is wrong`);
}

const all = (repository: Repository): Promise<unknown> =>
  Promise.all(Array.from({ length: 64 }, (_, piece) => readPiece(repository, piece)));

describe.concurrent("a registry that is slow", () => {
  test("to begin, by a second and a half, is asked once for each piece", async () => {
    const server = await serve(async (request) => {
      await Bun.sleep(1_500);
      return rangeReply(request, bytes);
    });
    await all(repositoryOf(server.host));
    const wanted = new Set(server.requests.map(({ headers }) => headers.get("range")));
    wanted.delete("bytes=0-0");
    expect(wanted.size).toBe(64);
    const pieces = server.requests.filter(({ headers }) => headers.get("range") !== "bytes=0-0");
    expect(pieces.length).toBeLessThanOrEqual(64 + 8);
  }, 30_000);

  test("in sending, at 10 KB a second, is not given up while it answers others", async () => {
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request) => {
        const [start = 0, last = 0] = (request.headers.get("range") ?? "").match(/\d+/g)?.map(Number) ?? [];
        const headers = { "content-range": `bytes ${start}-${last}/${blob.size}` };
        if (last - start < 20_000)
          return new Response(bytes.subarray(start, last + 1), { status: 206, headers });
        slow += 1;
        let at = start;
        const body = new ReadableStream({
          async pull(controller) {
            await Bun.sleep(100);
            controller.enqueue(bytes.subarray(at, Math.min(at + 1_000, last + 1)));
            at += 1_000;
            if (at > last) controller.close();
          },
        });
        return new Response(body, { status: 206, headers });
      },
    });
    let slow = 0;
    try {
      const repository = repositoryOf(`127.0.0.1:${server.port}`);
      let reading = true;
      const dripping = repository.openBlob(blob, 0, 40_000, signal).finally(() => {
        reading = false;
      });
      for (let piece = 0; reading; piece = (piece + 1) % 64) {
        await readPiece(repository, piece);
        await Bun.sleep(50);
      }
      expect(await dripping).toEqual(bytes.subarray(0, 40_000));
      expect(slow).toBe(1);
    } finally {
      await server.stop(true);
    }
  }, 30_000);
});

describe.concurrent("a token that ends while 64 readers read", () => {
  const readForMs = 4_000;

  test.each([
    ["when it was said to", 2],
    ["long before it was said to", 300],
  ])(
    "%s is exchanged once, and no reader notices",
    async (_, saidSeconds) => {
      const lifeMs = 1_000;
      const made: number[] = [];
      const server = await serve((request) => {
        if (request.url.pathname === "/token") {
          made.push(performance.now());
          return { status: 200, body: JSON.stringify({ token: `t${made.length}`, expires_in: saidSeconds }) };
        }
        const number = Number(/^Bearer t(\d+)$/.exec(request.headers.get("authorization") ?? "")?.[1]);
        const bornMs = made[number - 1];
        const life = saidSeconds === 2 ? 2_000 : lifeMs;
        if (bornMs !== undefined && performance.now() - bornMs < life) return rangeReply(request, bytes);
        return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${server.host}/token"` } };
      });
      const repository = repositoryOf(server.host, "pw");
      const endMs = performance.now() + readForMs;
      let reads = 0;
      const reader = async (piece: number): Promise<void> => {
        while (performance.now() < endMs) {
          await readPiece(repository, piece);
          reads += 1;
        }
      };
      await Promise.all(Array.from({ length: 64 }, (__, piece) => reader(piece)));
      expect(reads).toBeGreaterThan(64);
      expect(made.length).toBeGreaterThanOrEqual(3);
      // Half of the life that was said, or the whole of the one that it had.
      const apart = made.slice(1).map((atMs, index) => atMs - (made[index] as number));
      for (const ms of apart) expect(ms).toBeGreaterThanOrEqual(lifeMs * 0.95);
    },
    30_000,
  );
});

describe.concurrent("a probe", () => {
  test("goes where its request went, and takes a login nowhere", async () => {
    let hang = true;
    const server = await serve((request) => {
      if (request.url.pathname === "/token") return { status: 200, head: !hang, hangAfterBytes: 0 };
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${server.host}/token"` } };
    });
    const asked = repositoryOf(server.host, "pw").headManifest("1", signal);
    asked.catch(() => undefined);
    await Bun.sleep(2_700);
    hang = false;
    const probes = server.requests.filter(
      ({ method, url }) => method === "HEAD" && url.pathname === "/token",
    );
    expect(probes.length).toBeWithin(2, 6);
    for (const { headers, url } of probes) {
      expect(headers.has("authorization")).toBe(false);
      expect(url.host).toBe(server.host);
    }
  }, 30_000);
});

describe.concurrent("a host that is busy", () => {
  test("lets others wait for their turn for longer than it may let them wait for a head", async () => {
    const server = await serve(async (request) => {
      await Bun.sleep(150);
      return rangeReply(request, bytes);
    });
    const policy = {
      insecureHosts: new Set([server.host]),
      privateHosts: new Set<string>(),
      connectionsPerHost: 1,
      requestTimeoutMs: 400,
      attemptsMax: 1,
    };
    const client = new RegistryClient({ policy });
    const where = parseReference(`${server.host}/acme/app:1`);
    const repository = client.repository(where, anonymousProvider(server.host));
    await Promise.all(Array.from({ length: 8 }, (_, piece) => readPiece(repository, piece)));
    expect(server.requests).toHaveLength(8);
  }, 30_000);
});
