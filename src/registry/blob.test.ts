import { afterEach, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { digestOf } from "../reference/digest.ts";
import type { Descriptor } from "./descriptor.ts";
import { noise } from "./image.test-kit.ts";
import { type QuirkOptions, repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, type RawServer, startRawServer } from "./raw-server.test-kit.ts";
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

/** What a sound store answers to a request, ranged or not. */
function sound({ headers }: RawRequest, content: Uint8Array = bytes): RawReply {
  const range = /^bytes=(\d+)-(\d+)$/.exec(headers.get("range") ?? "");
  if (range === null) return { status: 200, body: content };
  const [start, end] = [Number(range[1]), Number(range[2])];
  const body = content.subarray(start, end + 1);
  return { status: 206, headers: { "content-range": `bytes ${start}-${end}/${content.length}` }, body };
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
      const reply = sound(request);
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

  test("a connection that always breaks is given up, in bounded tries", async () => {
    const server = await serve((request) => ({ ...sound(request), cutAfterBytes: 1 }));
    await expect(range(repositoryAt(server.host), 0, 10_000)).rejects.toMatchObject({ code: "unreachable" });
    expect(server.requests.length).toBeLessThanOrEqual(5);
  });

  test("a silence in the middle is a timeout, after which the rest is asked for", async () => {
    const server = await serve((request) => {
      const reply = sound(request);
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
      const reply = sound(request);
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
    const server = await serve((request) => sound(request, other));
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
    const server = await serve((request) => ({ ...sound(request), hangAfterBytes: 70_000 }));
    for await (const chunk of repositoryAt(server.host).streamBlob(blob, 0, signal)) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    await server.stop();
  });
});

describe("redirects of blobs", () => {
  /** A store as strict as S3 and Azure: no Authorization, no header that it does not know. */
  const strict = (request: RawRequest): RawReply => {
    const odd = [...request.headers.keys()].filter(
      (name) => name === "authorization" || name.startsWith("x-"),
    );
    return odd.length === 0 ? sound(request) : { status: 400, body: "two ways of authentication" };
  };
  const challenge = { "www-authenticate": 'Basic realm="r"' };

  async function registryTo(
    location: () => string,
    options: QuirkOptions & { stores: readonly RawServer[] },
  ) {
    const registry = await serve(({ headers }) =>
      headers.has("authorization")
        ? { status: 307, headers: { location: location() } }
        : { status: 401, headers: challenge },
    );
    const insecureHosts = new Set([registry.host, ...options.stores.map(({ host }) => host)]);
    const repository = repositoryAt(registry.host, {
      password: "hunter2",
      ...options,
      policy: { insecureHosts, ...options.policy },
    });
    return { registry, repository };
  }

  test("go to another host without Authorization, and are remembered until their signature ends", async () => {
    const clock = virtualClock();
    const store = await serve(strict);
    const query = "X-Amz-Date=20260101T000000Z&X-Amz-Expires=300&X-Amz-Signature=s3cr3t";
    const { registry, repository } = await registryTo(() => `http://${store.host}/blob?${query}`, {
      stores: [store],
      clock,
    });
    expect(await range(repository, 0, 10)).toEqual(bytes.subarray(0, 10));
    expect(await range(repository, 10, 20)).toEqual(bytes.subarray(10, 20));
    expect(registry.requests).toHaveLength(2);
    clock.pass(290_000);
    expect(await range(repository, 20, 30)).toEqual(bytes.subarray(20, 30));
    expect(registry.requests).toHaveLength(3);
    expect(store.requests).toHaveLength(3);
  });

  test.each([403, 410, 401, 400])("are resolved anew, once, when the store answers %p", async (status) => {
    let over = false;
    const store = await serve((request) => {
      if (over && request.url.search === "?1") return { status, body: "expired" };
      return strict(request);
    });
    let round = 0;
    const location = (): string => {
      round += 1;
      return `http://${store.host}/b?${round}`;
    };
    const { registry, repository } = await registryTo(location, {
      stores: [store],
    });
    await range(repository, 0, 10);
    over = true;
    expect(await range(repository, 10, 20)).toEqual(bytes.subarray(10, 20));
    expect(store.requests.map(({ url }) => url.search)).toEqual(["?1", "?1", "?2"]);
    expect(registry.requests).toHaveLength(3);
  });

  test("a store that refuses what was just resolved is an error that shows no URL", async () => {
    const store = await serve(() => ({
      status: 403,
      body: "<Error><StringToSign>s3cr3t</StringToSign></Error>",
    }));
    const { repository } = await registryTo(() => `http://${store.host}/b?X-Amz-Signature=s3cr3t`, {
      stores: [store],
    });
    const error: unknown = await range(repository, 0, 10).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "denied" });
    expect(inspect(error, { depth: 9 })).not.toMatch(/s3cr3t|X-Amz|hunter2/);
  });

  test("a store that is down is an error that shows no URL", async () => {
    const store = await serve(strict);
    const { repository } = await registryTo(() => `http://${store.host}/b?sig=s3cr3t`, { stores: [store] });
    await store.stop();
    const error: unknown = await range(repository, 0, 10).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "unreachable" });
    expect(inspect(error, { depth: 9 })).not.toMatch(/s3cr3t|hunter2/);
  });

  test.each([
    ["a host that is not public", (host: string) => `https://${host}/b`],
    ["the metadata service", () => "http://169.254.169.254/latest/meta-data/"],
    ["a private address in IPv6 clothes", () => "https://[::ffff:10.0.0.1]/b"],
    ["an address written as a number", () => "https://2130706433/b"],
    ["a user name", () => "https://alice:pw@1.1.1.1/b"],
    ["a file", () => "file:///etc/passwd"],
    ["a plain HTTP host on the internet", () => "http://1.1.1.1/b"],
  ])("to %s are refused", async (_, location) => {
    const store = await serve(strict);
    const { repository } = await registryTo(() => location(store.host), { stores: [] });
    await expect(range(repository, 0, 10)).rejects.toMatchObject({ code: "egress_refused" });
    expect(store.requests).toHaveLength(0);
  });

  test("that go in circles, or nowhere, are refused", async () => {
    const store = await serve(() => ({ status: 302, headers: { location: "/again" } }));
    const { repository } = await registryTo(() => `http://${store.host}/b`, { stores: [store] });
    await expect(range(repository, 0, 10)).rejects.toMatchObject({ code: "protocol" });
    expect(store.requests.length).toBeLessThanOrEqual(5);
    const nowhere = await registryTo(() => "http://[", { stores: [] });
    await expect(range(nowhere.repository, 0, 10)).rejects.toMatchObject({ code: "protocol" });
  });

  test("within the registry keep the credential", async () => {
    const registry = await serve((request) => {
      if (!request.headers.has("authorization")) return { status: 401, headers: challenge };
      return request.url.pathname.startsWith("/v2/")
        ? { status: 302, headers: { location: "/storage/b" } }
        : sound(request);
    });
    expect(await range(repositoryAt(registry.host, { password: "pw" }), 0, 10)).toEqual(
      bytes.subarray(0, 10),
    );
    expect(registry.lines().at(-1)).toBe("GET /storage/b");
  });
});
