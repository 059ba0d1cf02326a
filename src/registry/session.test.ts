import { afterEach, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { createProvider } from "../credential/create-provider.ts";
import type { CredentialProvider } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage } from "./image.test-kit.ts";
import { repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, type RawServer, startRawServer } from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const signal = new AbortController().signal;
const image = makeImage();
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function serve(handle: (request: RawRequest) => RawReply | Promise<RawReply>): Promise<RawServer> {
  const server = await startRawServer(handle);
  servers.push(server);
  return server;
}

const manifest: RawReply = {
  status: 200,
  headers: { "content-type": mediaTypes.ociManifest },
  body: image.manifestBytes,
};
const head = (of: Repository): Promise<unknown> => of.headManifest("1", signal);

interface Tokens {
  readonly answer: (request: RawRequest, count: number) => RawReply;
  readonly challenge?: (realm: string) => string;
  readonly valid?: (token: string) => boolean;
}

/** A registry and its token service on one host. */
async function registryWithTokens({
  answer,
  challenge,
  valid = () => true,
}: Tokens): Promise<{ server: RawServer; asked: RawRequest[] }> {
  const asked: RawRequest[] = [];
  const server = await serve((request) => {
    if (request.url.pathname === "/token") {
      asked.push(request);
      return answer(request, asked.length);
    }
    const token = /^Bearer (.*)$/.exec(request.headers.get("authorization") ?? "")?.[1];
    if (token !== undefined && valid(token)) return manifest;
    const realm = `http://${server.host}/token`;
    return {
      status: 401,
      headers: { "www-authenticate": challenge?.(realm) ?? `Bearer realm="${realm}",service="s"` },
    };
  });
  return { server, asked };
}

const tokenReply = (fields: object): RawReply => ({ status: 200, body: JSON.stringify(fields) });
const refreshProvider = (registry: string): CredentialProvider =>
  createProvider({
    registry,
    type: "token",
    credentials: credentialMap({ REGISTRY_IDENTITY_TOKEN: "refresh" }),
  });

describe("the token exchange", () => {
  test("asks with the challenged scope first, its service, and basic credentials", async () => {
    const { server, asked } = await registryWithTokens({
      answer: () => tokenReply({ token: "t" }),
      challenge: (realm) =>
        `Bearer realm="${realm}",service="a b",scope="repository:mirror/acme/app:pull repository:x:push"`,
    });
    await head(repositoryAt(server.host, { password: "pw" }));
    const [request] = asked;
    expect(request?.url.searchParams.getAll("scope")).toEqual([
      "repository:mirror/acme/app:pull",
      "repository:acme/app:pull",
    ]);
    expect(request?.url.searchParams.get("service")).toBe("a b");
    expect(request?.headers.get("authorization")).toBe(`Basic ${Buffer.from("alice:pw").toString("base64")}`);
  });

  test("sends nothing of a credential for a public image", async () => {
    const { server, asked } = await registryWithTokens({ answer: () => tokenReply({ access_token: "t" }) });
    await head(repositoryAt(server.host));
    expect(asked[0]?.headers.has("authorization")).toBe(false);
  });

  test("posts a refresh token, and asks by GET where POST is not there", async () => {
    const posted = await registryWithTokens({ answer: () => tokenReply({ access_token: "t" }) });
    await head(repositoryAt(posted.server.host, { provider: refreshProvider(posted.server.host) }));
    expect(posted.asked[0]?.method).toBe("POST");
    expect(Object.fromEntries(new URLSearchParams(posted.asked[0]?.body))).toEqual({
      grant_type: "refresh_token",
      client_id: "oci-node",
      service: "s",
      scope: "repository:acme/app:pull",
      refresh_token: "refresh",
    });
    const got = await registryWithTokens({
      answer: ({ method }) => (method === "POST" ? { status: 404 } : tokenReply({ token: "t" })),
    });
    await head(repositoryAt(got.server.host, { provider: refreshProvider(got.server.host) }));
    expect(got.asked.map(({ method }) => method)).toEqual(["POST", "GET"]);
  });

  const jwt = (exp: number): string => `h.${Buffer.from(JSON.stringify({ exp })).toString("base64url")}.s`;
  const startMs = Date.UTC(2026, 0, 1);
  test.each([
    ["expires_in", { token: "t", expires_in: 300 }, 300],
    ["nothing", { token: "t" }, 60],
    ["nonsense", { token: "t", expires_in: "soon" }, 60],
    ["a JWT's exp", { access_token: jwt(startMs / 1000 + 1000) }, 1000],
    ["a JWT's past exp", { access_token: jwt(5) }, 60],
  ])("renews a token at half of the life that %s gives", async (_, fields, lifeSeconds) => {
    const clock = virtualClock(startMs);
    const { server, asked } = await registryWithTokens({ answer: () => tokenReply(fields) });
    const repository = repositoryAt(server.host, { password: "pw", clock });
    await head(repository);
    clock.pass((lifeSeconds * 1000) / 2 - 1);
    await head(repository);
    expect(asked).toHaveLength(1);
    clock.pass(1);
    await head(repository);
    expect(asked).toHaveLength(2);
  });

  test("keeps the old token while the token service is away, until its end", async () => {
    const clock = virtualClock();
    const { server } = await registryWithTokens({
      answer: (_, count) => (count === 1 ? tokenReply({ token: "t", expires_in: 1000 }) : { status: 403 }),
    });
    const repository = repositoryAt(server.host, { password: "pw", clock });
    await head(repository);
    clock.pass(990_000);
    await head(repository);
    clock.pass(10_000);
    await expect(head(repository)).rejects.toMatchObject({ code: "unauthorized" });
  });

  test("makes a new token, once, when the registry refuses the one that was kept", async () => {
    let valid = "t1";
    const { server, asked } = await registryWithTokens({
      answer: (_, count) => tokenReply({ token: `t${count}`, expires_in: 1000 }),
      valid: (token) => token === valid,
    });
    const repository = repositoryAt(server.host, { password: "pw" });
    await head(repository);
    valid = "t2";
    await Promise.all([head(repository), head(repository), head(repository)]);
    expect(asked).toHaveLength(2);
    valid = "none";
    await expect(head(repository)).rejects.toMatchObject({ code: "unauthorized" });
    expect(asked).toHaveLength(3);
    await expect(head(repository)).rejects.toMatchObject({ code: "unauthorized" });
    expect(asked).toHaveLength(3);
  });

  test.each([
    ["no token", tokenReply({}), "protocol"],
    ["no JSON", { status: 200, body: "<html>" }, "protocol"],
    ["a token with a line break", tokenReply({ token: "a\r\nX-Evil: 1" }), "protocol"],
    ["a body without an end", { status: 200, body: "x".repeat(70_000) }, "too_large"],
    ["a redirect", { status: 302, headers: { location: "http://127.0.0.1:1/" } }, "egress_refused"],
    ["401", { status: 401 }, "unauthorized"],
    ["403", { status: 403 }, "unauthorized"],
    ["429", { status: 429, headers: { "retry-after": "7200" } }, "rate_limited"],
    ["500", { status: 500 }, "unreachable"],
  ] as [string, RawReply, string][])(
    "of a token service that answers %s fails by name",
    async (_, reply, code) => {
      const { server } = await registryWithTokens({ answer: () => reply });
      const error: unknown = await head(repositoryAt(server.host, { password: "hunter2" })).catch(
        (thrown: unknown) => thrown,
      );
      expect(error).toMatchObject({
        code,
        registry: server.host,
        repository: "acme/app",
        next: expect.any(String),
      });
      expect(inspect(error, { depth: 9 })).not.toContain("hunter2");
    },
  );

  test.each([
    ["another host", "https://evil.com/token"],
    ["a host that looks alike", "http://HOST.evil.com/token"],
    ["the registry in front of an @", "https://HOST@evil.com/token"],
    ["plain HTTP elsewhere", "http://evil.com/token"],
    ["no URL", "token"],
    ["a file", "file:///etc/passwd"],
  ])("does not send a credential to a realm that is %s", async (_, realm) => {
    const server = await serve(() => ({
      status: 401,
      headers: { "www-authenticate": `Bearer realm="${realm.replace("HOST", server.host)}"` },
    }));
    const error: unknown = await head(repositoryAt(server.host, { password: "pw" })).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ code: "egress_refused", message: expect.stringContaining("was not sent") });
  });

  test("takes a realm that the operator approved for the registry", async () => {
    const tokens = await serve(() => tokenReply({ token: "t" }));
    const server = await serve(({ headers }) =>
      headers.get("authorization") === "Bearer t"
        ? manifest
        : { status: 401, headers: { "www-authenticate": `Bearer realm="http://${tokens.host}/token"` } },
    );
    const policy = {
      insecureHosts: new Set([server.host, tokens.host]),
      realmHosts: new Map([[server.host, [tokens.host]]]),
    };
    await head(repositoryAt(server.host, { password: "pw", policy }));
    expect(tokens.requests).toHaveLength(1);
  });
});
