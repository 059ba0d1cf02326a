import { afterEach, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { digestOf } from "../reference/digest.ts";
import type { Descriptor } from "./descriptor.ts";
import { noise } from "./image.test-kit.ts";
import { type QuirkOptions, repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import {
  type RawReply,
  type RawRequest,
  type RawServer,
  rangeReply,
  startRawServer,
} from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const signal = new AbortController().signal;
const bytes = noise(1000, 7);
const blob: Descriptor = {
  mediaType: "application/vnd.oci.image.layer.v1.tar",
  digest: digestOf(bytes),
  size: bytes.length,
};
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function serve(handle: (request: RawRequest) => RawReply): Promise<RawServer> {
  const server = await startRawServer(handle);
  servers.push(server);
  return server;
}

const range = (of: Repository, start: number, end: number): Promise<Uint8Array> =>
  of.openBlob(blob, start, end, signal);

describe("redirects of blobs", () => {
  /** A store as strict as S3 and Azure: no Authorization, no header that it does not know. */
  const strict = (request: RawRequest): RawReply => {
    const odd = [...request.headers.keys()].filter(
      (name) => name === "authorization" || name.startsWith("x-"),
    );
    return odd.length === 0
      ? rangeReply(request, bytes)
      : { status: 400, body: "two ways of authentication" };
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
    const clock = { ...virtualClock(), now: Date.now };
    const { repository } = await registryTo(() => `http://${store.host}/b?sig=s3cr3t`, {
      stores: [store],
      clock,
      policy: { totalTimeoutMs: 200 },
    });
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
        : rangeReply(request, bytes);
    });
    expect(await range(repositoryAt(registry.host, { password: "pw" }), 0, 10)).toEqual(
      bytes.subarray(0, 10),
    );
    expect(registry.lines().at(-1)).toBe("GET /storage/b");
  });
});
