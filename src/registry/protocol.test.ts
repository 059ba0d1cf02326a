import { afterEach, describe, expect, test } from "bun:test";
import { createProvider } from "../credential/create-provider.ts";
import { credentialMap } from "../credential/value.ts";
import { digestOf } from "../reference/digest.ts";
import { parseReference } from "../reference/reference.ts";
import { RegistryClient } from "./client.ts";
import { type Descriptor, mediaTypes } from "./descriptor.ts";
import { FailedLogins } from "./failed-logins.ts";
import { makeImage, noise } from "./image.test-kit.ts";
import { leasedToken, numberedProvider } from "./issuer.test-kit.ts";
import { basicProvider, repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import {
  type RawReply,
  type RawRequest,
  type RawServer,
  rangeReply,
  startRawServer,
} from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const signal = new AbortController().signal;
const image = makeImage();
const bytes = noise(200_000, 5);
const blob: Descriptor = { mediaType: "layer", digest: digestOf(bytes), size: bytes.length };
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function serve(handle: (request: RawRequest) => RawReply): Promise<RawServer> {
  const server = await startRawServer(handle);
  servers.push(server);
  return server;
}

const manifest: RawReply = {
  status: 200,
  headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest },
  body: image.manifestBytes,
};
const head = (of: Repository): Promise<unknown> => of.headManifest("1", signal);
const authorizationOf = ({ headers }: RawRequest): string | null => headers.get("authorization");

describe("challenges", () => {
  test("in several fields are one list, of which the one with tokens is taken", async () => {
    const server = await serve((request) => {
      if (request.url.pathname === "/token") return { status: 200, body: '{"access_token":"t"}' };
      if (authorizationOf(request) === "Bearer t") return manifest;
      const bearer = `Bearer realm="http://${server.host}/token"`;
      return {
        status: 401,
        headers: { "www-authenticate": `Basic realm="r"\r\nWWW-Authenticate: ${bearer}` },
      };
    });
    await head(repositoryAt(server.host, { password: "pw" }));
    expect(
      server.requests
        .filter((one) => authorizationOf(one)?.startsWith("Basic "))
        .map(({ url }) => url.pathname),
    ).toEqual(["/token"]);
  });

  test("scopes go one by one in a GET, and joined by a space in a POST", async () => {
    const scopes: (string | string[] | null)[] = [];
    const server = await serve(({ url, method, body, headers }) => {
      if (url.pathname === "/token") {
        scopes.push(
          method === "GET" ? url.searchParams.getAll("scope") : new URLSearchParams(body).get("scope"),
        );
        return { status: 200, body: '{"token":"t"}' };
      }
      if (headers.has("authorization")) return manifest;
      const scope = "repository:mirror/app:pull aws repository:acme/app:pull,push registry:catalog:*";
      return {
        status: 401,
        headers: { "www-authenticate": `Bearer realm="http://${server.host}/token",scope="${scope}"` },
      };
    });
    const identity = createProvider({
      registry: server.host,
      type: "token",
      credentials: credentialMap({ REGISTRY_IDENTITY_TOKEN: "r" }),
    });
    await head(repositoryAt(server.host, { password: "pw" }));
    await head(repositoryAt(server.host, { provider: identity }));
    const expected = ["repository:mirror/app:pull", "aws", "repository:acme/app:pull"];
    expect(scopes).toEqual([expected, expected.join(" ")]);
  });
});

describe("tokens", () => {
  /** Of `acme/app` and `acme/other`, with a password or another one. */
  test("are kept apart by the credential's version, and by the repository", async () => {
    const asked: string[] = [];
    const server = await serve((request) => {
      if (request.url.pathname === "/token") {
        asked.push(`${authorizationOf(request)?.slice(6)} ${request.url.searchParams.get("scope")}`);
        return { status: 200, body: JSON.stringify({ token: `t${asked.length}`, expires_in: 300 }) };
      }
      if (authorizationOf(request)?.startsWith("Bearer ")) return manifest;
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${server.host}/token"` } };
    });
    const client = new RegistryClient({
      policy: { insecureHosts: new Set([server.host]), privateHosts: new Set() },
      failedLogins: new FailedLogins(),
    });
    for (const password of ["one", "two", "one"]) {
      for (const name of ["acme/app", "acme/other", "acme/app"]) {
        const reference = parseReference(`${server.host}/${name}:1`);
        await head(client.repository(reference, basicProvider(server.host, password)));
      }
    }
    const pair = (password: string): string => Buffer.from(`alice:${password}`).toString("base64");
    expect(asked).toEqual([
      `${pair("one")} repository:acme/app:pull`,
      `${pair("one")} repository:acme/other:pull`,
      `${pair("two")} repository:acme/app:pull`,
      `${pair("two")} repository:acme/other:pull`,
    ]);
  });
});

describe("a blob", () => {
  test("is sized by its descriptor: one GET reads it, and no HEAD is sent for it", async () => {
    const server = await serve((request) => {
      const whole = image.blobs.get(request.url.pathname.split("/").at(-1) ?? "");
      return whole === undefined ? manifest : rangeReply(request, whole);
    });
    const repository = repositoryAt(server.host);
    const { layers } = await repository.resolve({ os: "linux", architecture: "amd64" }, signal);
    const [layer] = layers;
    if (layer === undefined) throw new Error("no layer");
    await repository.openBlob(layer, 0, 100, signal);
    await Array.fromAsync(repository.streamBlob(layer, 0, signal));
    expect(server.lines()).toEqual([
      "GET /v2/acme/app/manifests/1",
      `GET /v2/acme/app/blobs/${image.config.digest}`,
      `GET /v2/acme/app/blobs/${layer.digest}`,
      `GET /v2/acme/app/blobs/${layer.digest}`,
    ]);
  });

  test("whose token ends while it comes and whose connection then falls silent goes on with the rest and a new token", async () => {
    let good = "Bearer t1";
    const server = await serve((request) => {
      if (authorizationOf(request) !== good) return { status: 401 };
      const reply = rangeReply(request, bytes);
      if (good === "Bearer t2") return reply;
      // From here on the token that the body came with is not taken any more.
      good = "Bearer t2";
      return { ...reply, hangAfterBytes: 120_000 };
    });
    const provider = numberedProvider(server.host, leasedToken);
    const policy = { idleTimeoutMs: 50 };
    const stream = repositoryAt(server.host, { provider, policy }).streamBlob(blob, 0, signal);
    expect(Buffer.concat(await Array.fromAsync(stream)).equals(bytes)).toBe(true);
    expect(provider.refreshes()).toBe(1);
    const ranges = server.requests.map(({ headers }) => headers.get("range"));
    expect(ranges).toEqual([null, "bytes=120000-199999", "bytes=120000-199999"]);
  });
});

describe("what passes is tried again", () => {
  const startMs = Date.UTC(2026, 0, 1);
  test.each([
    [408, undefined, undefined],
    [429, undefined, undefined],
    [500, undefined, undefined],
    [502, undefined, undefined],
    [503, "7", 7_000],
    [429, "Thu, 01 Jan 2026 00:00:20 GMT", 20_000],
    [429, String(startMs / 1000 + 30), 30_000],
  ])("after %p, with Retry-After %p", async (status, retryAfter, pauseMs) => {
    const clock = virtualClock(startMs);
    const headers: Record<string, string> = retryAfter === undefined ? {} : { "retry-after": retryAfter };
    const server = await serve(() => (server.requests.length === 1 ? { status, headers } : manifest));
    await head(repositoryAt(server.host, { clock }));
    expect(server.requests).toHaveLength(2);
    expect(clock.slept).toEqual([pauseMs ?? 250]);
  });
});
