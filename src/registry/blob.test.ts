import { afterEach, describe, expect, test } from "bun:test";
import { digestOf } from "../reference/digest.ts";
import type { Descriptor } from "./descriptor.ts";
import { noise } from "./image.test-kit.ts";
import { repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import {
  type RawReply,
  type RawRequest,
  type RawServer,
  rangeReply,
  startRawServer,
} from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const signal = new AbortController().signal;
const bytes = noise(200_000, 7);
const blob: Descriptor = {
  mediaType: "application/vnd.oci.image.layer.v1.tar",
  digest: digestOf(bytes),
  size: bytes.length,
};
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function serve(handle: (request: RawRequest) => RawReply | Promise<RawReply>): Promise<RawServer> {
  const server = await startRawServer(handle);
  servers.push(server);
  return server;
}

async function all(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(stream));
}

const range = (of: Repository, start: number, end: number): Promise<Uint8Array> =>
  of.openBlob(blob, start, end, signal);
const ranges = (server: RawServer): (string | null)[] =>
  server.requests.map(({ headers }) => headers.get("range"));
/** Where each request started. */
const starts = (server: RawServer): number[] =>
  ranges(server).map((field) => Number(/=(\d+)-/.exec(field ?? "")?.[1] ?? 0));

describe("ranges", () => {
  test("a 200 to a ranged request is range_unsupported, and the body is not read", async () => {
    const server = await serve(() => ({ status: 200, body: bytes }));
    await expect(range(repositoryAt(server.host), 10, 20)).rejects.toMatchObject({
      code: "range_unsupported",
    });
    expect(server.requests).toHaveLength(1);
  });

  test("a 200 is right where the whole was asked for", async () => {
    const server = await serve(() => ({ status: 200, body: bytes }));
    expect(await range(repositoryAt(server.host), 0, blob.size)).toEqual(bytes);
  });

  test.each([
    [undefined],
    ["bytes 0-9/200000"],
    ["bytes 10-18/200000"],
    ["bytes 10-19/200001"],
    ["bytes */200000"],
    ["lines 10-19/200000"],
  ])("a 206 with Content-Range %p is refused", async (contentRange) => {
    const headers = contentRange === undefined ? {} : { "content-range": contentRange };
    const server = await serve(() => ({ status: 206, headers, body: bytes.subarray(10, 20) }));
    await expect(range(repositoryAt(server.host), 10, 20)).rejects.toMatchObject({ code: "protocol" });
  });

  test("a short body, and one that breaks off, go on where they stopped", async () => {
    const server = await serve((request) => {
      const reply = rangeReply(request, bytes);
      if (server.requests.length === 2) return { ...reply, cutAfterBytes: 5000 };
      if (server.requests.length > 2) return reply;
      return {
        ...reply,
        headers: { ...reply.headers, "content-length": "500" },
        body: reply.body!.slice(0, 500),
      };
    });
    expect(await range(repositoryAt(server.host), 100, 10_100)).toEqual(bytes.subarray(100, 10_100));
    expect(starts(server).slice(0, 2)).toEqual([100, 600]);
    expect(starts(server)[2]).toBeWithin(600, 5601);
  });

  test("a connection that always breaks is given up after a time, and not asked often", async () => {
    const server = await serve((request) => ({ ...rangeReply(request, bytes), cutAfterBytes: 1 }));
    const clock = { ...virtualClock(), now: Date.now };
    const policy = { totalTimeoutMs: 1_000, trialEveryMs: 200 };
    const repository = repositoryAt(server.host, { clock, policy });
    const all = Array.from({ length: 8 }, (_, index) =>
      range(repository, index * 10_000, (index + 1) * 10_000),
    );
    const ended = await Promise.allSettled(all);
    for (const one of ended)
      expect(one).toMatchObject({ status: "rejected", reason: { name: "RegistryError" } });
    expect(server.requests.length).toBeLessThanOrEqual(8 + 8);
  });

  test("a silence in the middle is a timeout, after which the rest is asked for", async () => {
    const server = await serve((request) => {
      const reply = rangeReply(request, bytes);
      return server.requests.length === 1 ? { ...reply, hangAfterBytes: 600 } : reply;
    });
    const asked = repositoryAt(server.host, { policy: { idleTimeoutMs: 50 } });
    expect(await range(asked, 0, 1000)).toEqual(bytes.subarray(0, 1000));
    expect(ranges(server)).toEqual(["bytes=0-999", "bytes=600-999"]);
  });

  test("416 says that the registry's copy is too short", async () => {
    const server = await serve(() => ({ status: 416 }));
    await expect(range(repositoryAt(server.host), 10, 20)).rejects.toMatchObject({ code: "blob_truncated" });
  });

  test("bytes outside of the blob are the caller's mistake", async () => {
    const asked = repositoryAt("r.test");
    await expect(range(asked, 5, 5)).rejects.toThrow(RangeError);
    await expect(range(asked, 0, blob.size + 1)).rejects.toThrow(RangeError);
  });
});

describe("streams", () => {
  test("go on after silences and breaks by ranges, and are verified as a whole", async () => {
    const server = await serve((request) => {
      const reply = rangeReply(request, bytes);
      if (server.requests.length > 3) return reply;
      return server.requests.length < 3
        ? { ...reply, hangAfterBytes: 70_000 }
        : { ...reply, cutAfterBytes: 100 };
    });
    const repository = repositoryAt(server.host, { policy: { idleTimeoutMs: 50 } });
    expect(await all(repository.streamBlob(blob, 0, signal))).toEqual(Buffer.from(bytes));
    expect(ranges(server).slice(0, 3)).toEqual([null, "bytes=70000-199999", "bytes=140000-199999"]);
    expect(starts(server)[3]).toBeWithin(140_000, 140_101);
  });

  test("go on without ranges by passing over what was had", async () => {
    const server = await serve(() => ({
      status: 200,
      body: bytes,
      ...(server.requests.length === 1 ? { cutAfterBytes: 70_000 } : {}),
    }));
    expect(await all(repositoryAt(server.host).streamBlob(blob, 0, signal))).toEqual(Buffer.from(bytes));
    expect(server.requests).toHaveLength(2);
  });

  test("from the middle need ranges", async () => {
    const server = await serve(() => ({ status: 200, body: bytes }));
    const stream = repositoryAt(server.host).streamBlob(blob, 5, signal);
    await expect(all(stream)).rejects.toMatchObject({ code: "range_unsupported" });
  });

  test("with another content than the digest's fail at the end", async () => {
    const other = noise(bytes.length, 8);
    const server = await serve((request) => rangeReply(request, other));
    const stream = repositoryAt(server.host).streamBlob(blob, 0, signal);
    await expect(all(stream)).rejects.toMatchObject({ code: "digest_mismatch", next: expect.any(String) });
    await expect(repositoryAt(server.host).blob(blob, signal)).rejects.toMatchObject({
      code: "digest_mismatch",
    });
  });

  test.each([
    [bytes.length - 1, "blob_truncated"],
    [bytes.length + 1, "digest_mismatch"],
  ])("of %p bytes instead of 200000 are %s", async (length, code) => {
    const server = await serve(() => ({ status: 200, body: noise(length, 7) }));
    await expect(all(repositoryAt(server.host).streamBlob(blob, 0, signal))).rejects.toMatchObject({ code });
  });

  test("a small blob that claims to be large is not fetched", async () => {
    const asked = repositoryAt("r.test").blob({ ...blob, size: 9 * 1024 * 1024 }, signal);
    await expect(asked).rejects.toMatchObject({ code: "too_large" });
  });

  test("an empty blob needs no request", async () => {
    const empty = { ...blob, size: 0, digest: digestOf(new Uint8Array()) };
    expect(await all(repositoryAt("r.test").streamBlob(empty, 0, signal))).toHaveLength(0);
  });

  test("leaving a stream closes its connection", async () => {
    const server = await serve((request) => ({ ...rangeReply(request, bytes), hangAfterBytes: 70_000 }));
    for await (const chunk of repositoryAt(server.host).streamBlob(blob, 0, signal)) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    await server.stop();
  });
});
