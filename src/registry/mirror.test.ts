import { afterEach, describe, expect, test } from "bun:test";
import { digestOf } from "../reference/digest.ts";
import { type Descriptor, mediaTypes } from "./descriptor.ts";
import { type DockerRegistry, startDockerRegistry } from "./docker-registry.test-kit.ts";
import { makeImage, noise, pushBlob } from "./image.test-kit.ts";
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
const bytes = noise(300_000, 11);
const blob: Descriptor = { mediaType: "layer", digest: digestOf(bytes), size: bytes.length };
const ended: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ended.splice(0)) await end();
});

async function serve(handle: (request: RawRequest) => RawReply | Promise<RawReply>): Promise<RawServer> {
  const server = await startRawServer(handle);
  ended.push(() => server.stop());
  return server;
}

async function dockerRegistry(repository = "acme/app"): Promise<DockerRegistry> {
  const registry = await startDockerRegistry();
  ended.push(() => registry.stop());
  await pushBlob(registry.host, repository, blob.digest, bytes);
  return registry;
}

/** A registry that counts what it is asked, with mirrors before it. */
async function behind(
  mirrors: readonly string[],
  options: { namespaced?: boolean; now?: () => number; connectionsPerHost?: number } = {},
) {
  const { namespaced = false, now = Date.now, connectionsPerHost = 16 } = options;
  const origin = await serve((request) =>
    request.headers.has("authorization")
      ? rangeReply(request, bytes)
      : { status: 401, headers: { "www-authenticate": 'Basic realm="r"' } },
  );
  const list = mirrors.map((url) => ({ url: new URL(url), namespaced }));
  const repository = repositoryAt(origin.host, {
    password: "hunter2",
    clock: { ...virtualClock(), now },
    policy: { mirrors: new Map([[origin.host, list]]), trialEveryMs: 500, connectionsPerHost },
  });
  return { origin, repository };
}

const range = (of: Repository, start: number, end: number): Promise<Uint8Array> =>
  of.openBlob(blob, start, end, signal);
const expectRange = async (of: Repository, start: number, end: number): Promise<void> =>
  expect(await range(of, start, end)).toEqual(bytes.subarray(start, end));
const whole = async (of: Repository): Promise<Buffer> =>
  Buffer.concat(await Array.fromAsync(of.streamBlob(blob, 0, signal)));

describe("a mirror", () => {
  test("gives ranges and whole blobs in the registry's place", async () => {
    const mirror = await dockerRegistry();
    const { origin, repository } = await behind([`http://${mirror.host}`]);
    await expectRange(repository, 10, 200_000);
    expect(await whole(repository)).toEqual(Buffer.from(bytes));
    expect(origin.requests).toHaveLength(0);
  });

  test("is asked below its own path, for the registry that is meant, and without the credential", async () => {
    const mirror = await serve((request) => rangeReply(request, bytes));
    const { origin, repository } = await behind([`http://${mirror.host}/cache/`], { namespaced: true });
    await expectRange(repository, 10, 20);
    const [request] = mirror.requests;
    expect(request?.url.pathname).toBe(`/v2/cache/acme/app/blobs/${blob.digest}`);
    expect(request?.url.searchParams.get("ns")).toBe(origin.host);
    expect(request?.headers.has("authorization")).toBe(false);
  });

  test("is never asked for manifests: they prove what the credential may", async () => {
    const mirror = await serve(() => ({ status: 200 }));
    const { repository } = await behind([`http://${mirror.host}`]);
    await repository.headManifest("1", signal).catch(() => undefined);
    await repository.headManifest(blob.digest, signal).catch(() => undefined);
    expect(mirror.requests).toHaveLength(0);
  });

  test.each([
    ["is down", () => ({ status: 200, head: false, cutAfterBytes: 0 }), 1],
    ["fails", () => ({ status: 503 }), 1],
    ["wants a credential", () => ({ status: 401, headers: { "www-authenticate": "Basic" } }), 1],
    ["lacks the blob", () => ({ status: 404 }), 1],
    ["has no ranges", () => ({ status: 200, body: bytes }), 1],
    ["breaks off", (request) => ({ ...rangeReply(request, bytes), cutAfterBytes: 50 }), 1],
    ["leads elsewhere", () => ({ status: 307, headers: { location: "http://169.254.169.254/" } }), 1],
    ["leads to a private address", () => ({ status: 307, headers: { location: "https://10.0.0.1/" } }), 1],
  ] as [string, (request: RawRequest) => RawReply, number][])(
    "that %s is passed over, and left alone for a while",
    async (_, handle, count) => {
      const mirror = await serve(handle);
      const { repository } = await behind([`http://${mirror.host}`]);
      await expectRange(repository, 10, 1_000);
      await expectRange(repository, 2_000, 3_000);
      expect(mirror.requests).toHaveLength(count);
    },
  );

  test("that is not there, and one that hangs, cost two seconds once", async () => {
    const dead = await serve(() => ({ status: 200 }));
    await dead.stop();
    const hanging = await serve(() => ({ status: 200, head: false, hangAfterBytes: 0 }));
    const stalling = await serve((request) => ({ ...rangeReply(request, bytes), hangAfterBytes: 10 }));
    const urls = [dead, hanging, stalling].map(({ host }) => `http://${host}`);
    const { repository } = await behind(urls);
    const startMs = performance.now();
    await expectRange(repository, 10, 1_000);
    const firstMs = performance.now() - startMs;
    expect(firstMs).toBeWithin(3_500, 6_000);
    await expectRange(repository, 2_000, 3_000);
    expect(performance.now() - startMs - firstMs).toBeLessThan(1_000);
    // A request, and the probes that ask whether it hangs for good.
    expect(hanging.lines().filter((line) => line.startsWith("GET")).length).toBeLessThanOrEqual(4);
  });

  test("that is slow is left for the registry in the middle of a blob", async () => {
    let sent = 0;
    const drip = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => {
        const body = new ReadableStream({
          async pull(controller) {
            await Bun.sleep(100);
            controller.enqueue(bytes.subarray(sent, sent + 2_000));
            sent += 2_000;
          },
        });
        const headers = { "content-range": `bytes 0-99999/${bytes.length}` };
        return new Response(body, { status: 206, headers });
      },
    });
    ended.push(() => drip.stop(true));
    const { origin, repository } = await behind([`http://127.0.0.1:${drip.port}`]);
    await expectRange(repository, 0, 100_000);
    const rest = Number(/=(\d+)-/.exec(origin.requests.at(-1)?.headers.get("range") ?? "")?.[1]);
    expect(rest).toBeWithin(20_000, 80_000);
  });

  test("that has more to send than fits at once is not slow for those who wait for their turn", async () => {
    const mirror = await serve(async (request) => {
      await Bun.sleep(900);
      return rangeReply(request, bytes);
    });
    const { origin, repository } = await behind([`http://${mirror.host}`], { connectionsPerHost: 2 });
    await Promise.all(Array.from({ length: 8 }, (_, index) => expectRange(repository, index, index + 10)));
    expect(mirror.requests).toHaveLength(8);
    expect(origin.requests).toHaveLength(0);
  });

  test("gives nobody another's configuration: the registry is asked whether the repository has it", async () => {
    const image = makeImage();
    const mirror = await serve((request) =>
      rangeReply(request, image.blobs.get(image.config.digest) ?? bytes),
    );
    const origin = await serve(({ url }) =>
      url.pathname.includes("/manifests/")
        ? { status: 200, headers: { "content-type": mediaTypes.ociManifest }, body: image.manifestBytes }
        : { status: 404 },
    );
    const list = [{ url: new URL(`http://${mirror.host}`), namespaced: false }];
    const repository = repositoryAt(origin.host, { policy: { mirrors: new Map([[origin.host, list]]) } });
    const platform = { os: "linux", architecture: "amd64" };
    await expect(repository.resolve(platform, signal)).rejects.toMatchObject({ code: "not_found" });
    expect(mirror.requests).toHaveLength(0);
  });

  test("that lies is not asked for the blob again, once its bytes are doubted", async () => {
    const lie = noise(bytes.length, 12);
    const mirror = await serve((request) => rangeReply(request, lie));
    const { repository } = await behind([`http://${mirror.host}`]);
    expect(await range(repository, 10, 1_000)).toEqual(lie.subarray(10, 1_000));
    repository.doubtBlob(blob);
    await expectRange(repository, 10, 1_000);
    expect(mirror.requests).toHaveLength(1);
  });

  test("that lies in a whole blob is found out at its end, and by then only the registry is asked", async () => {
    const mirror = await serve((request) => rangeReply(request, noise(bytes.length, 12)));
    const { repository } = await behind([`http://${mirror.host}`]);
    await expect(whole(repository)).rejects.toMatchObject({ code: "digest_mismatch" });
    expect(await whole(repository)).toEqual(Buffer.from(bytes));
    expect(mirror.requests).toHaveLength(1);
  });

  test("is asked again after a while", async () => {
    let nowMs = 0;
    let up = false;
    const mirror = await serve((request) => (up ? rangeReply(request, bytes) : { status: 503 }));
    const { origin, repository } = await behind([`http://${mirror.host}`], { now: () => nowMs });
    await expectRange(repository, 0, 10);
    const before = origin.requests.length;
    up = true;
    nowMs += 10_001;
    await expectRange(repository, 10, 20);
    expect(origin.requests).toHaveLength(before);
  });

  test("in the clear or in private is no leave for a tenant to name it as a registry", async () => {
    const mirror = await serve((request) => rangeReply(request, bytes));
    const list = [{ url: new URL(`http://${mirror.host}`), namespaced: false }];
    const policy = { insecureHosts: new Set<string>(), mirrors: new Map([["r.test", list]]), attemptsMax: 1 };
    const asked = repositoryAt(mirror.host, { policy }).headManifest("1", signal);
    await expect(asked).rejects.toMatchObject({ code: "egress_refused" });
    expect(mirror.requests).toHaveLength(0);
  });
});
