import { afterEach, describe, expect, test } from "bun:test";
import { CredentialError } from "../credential/error.ts";
import { anonymousProvider, type CredentialProvider } from "../credential/provider.ts";
import { parseReference } from "../reference/reference.ts";
import { Redacted } from "../std/redacted.ts";
import { RegistryClient } from "./client.ts";
import { mediaTypes } from "./descriptor.ts";
import { grantedBy } from "./grant.ts";
import { makeImage } from "./image.test-kit.ts";
import { awsPassword, numberedProvider } from "./issuer.test-kit.ts";
import type { Minted, MintOptions } from "./mint.ts";
import { basicProvider, type VirtualClock, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, type RawServer, startRawServer } from "./raw-server.test-kit.ts";

const signal = new AbortController().signal;
const image = makeImage();
const startMs = Date.UTC(2026, 0, 1);
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

const manifest: RawReply = {
  status: 200,
  headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest },
  body: image.manifestBytes,
};
const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString("base64")}`;

interface Scene {
  readonly server: RawServer;
  readonly clock: VirtualClock;
  readonly mint: (options?: MintOptions, provider?: CredentialProvider) => Promise<Minted>;
}

/** A registry, and what mints for `acme/app@DIGEST` with alice's password. */
async function scene(handle: (request: RawRequest, host: string) => RawReply): Promise<Scene> {
  const server = await startRawServer((request) => handle(request, server.host));
  servers.push(server);
  const clock = virtualClock(startMs);
  const policy = {
    insecureHosts: new Set([server.host]),
    privateHosts: new Set<string>(),
    trialEveryMs: 5,
    attemptsMax: 1,
    totalTimeoutMs: 500,
  };
  const client = new RegistryClient({ policy, clock });
  const reference = parseReference(`${server.host}/acme/app@${image.manifest.digest}`);
  const alice = basicProvider(server.host, "pw");
  const mint: Scene["mint"] = (options, provider = alice) =>
    client.mintPull(reference, provider, signal, options);
  return { server, clock, mint };
}

/** With a token service whose tokens are `t1`, `t2`, …, of which the registry takes those that `good` says. */
function withTokens(
  good: (token: string) => boolean,
  { status = 200, away = () => false }: { readonly status?: number; readonly away?: () => boolean } = {},
): Promise<Scene> {
  let made = 0;
  return scene(({ url, headers }, host) => {
    if (url.pathname === "/token") {
      made += 1;
      return { status, body: JSON.stringify({ token: `t${made}`, expires_in: 300 }) };
    }
    const token = /^Bearer (.*)$/.exec(headers.get("authorization") ?? "")?.[1];
    if (away()) return { status: 503 };
    if (token !== undefined && good(token)) return manifest;
    const error = token === undefined ? "" : ',error="insufficient_scope"';
    return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${host}/token"${error}` } };
  });
}

const exchanges = (server: RawServer): number =>
  server.lines().filter((line) => line === "GET /token").length;
const secretOf = (minted: Minted): string | undefined => {
  const authorization = minted === "unasked" ? undefined : minted?.authorization;
  if (authorization?.kind === "bearer") return authorization.token.expose();
  return authorization?.kind === "basic" ? authorization.password.expose() : undefined;
};

describe("minting a pull", () => {
  test("gives the token service's token for the repository, proved by a HEAD of the very manifest", async () => {
    const { server, mint } = await withTokens(() => true);
    const minted = await mint();
    expect(secretOf(minted)).toBe("t1");
    expect(minted).toMatchObject({ validUntil: new Date(startMs + 300_000), scope: "pull acme/app" });
    expect(server.lines()).toEqual([
      `HEAD /v2/acme/app/manifests/${image.manifest.digest}`,
      "GET /token",
      `HEAD /v2/acme/app/manifests/${image.manifest.digest}`,
    ]);
  });

  test("asks nobody until half of its life is over, then once for all who wait", async () => {
    const { server, clock, mint } = await withTokens(() => true);
    await Promise.all([mint(), mint(), mint()]);
    expect(exchanges(server)).toBe(1);
    clock.pass(149_000);
    const before = server.requests.length;
    expect(secretOf(await mint())).toBe("t1");
    expect(server.requests).toHaveLength(before);
    clock.pass(1_000);
    const next = await Promise.all([mint(), mint(), mint()]);
    expect(next.map(secretOf)).toEqual(["t2", "t2", "t2"]);
    expect(exchanges(server)).toBe(2);
  });

  test("gives another one when the last was refused, and the same to all who say so", async () => {
    const { server, clock, mint } = await withTokens(() => true);
    await mint();
    clock.pass(6_000);
    const anew = await Promise.all([mint({ anew: true }), mint({ anew: true })]);
    expect(anew.map(secretOf)).toEqual(["t2", "t2"]);
    expect(secretOf(await mint({ anew: true }))).toBe("t2");
    expect(exchanges(server)).toBe(2);
  });

  test("does not hand out again what was refused, also when there is no other", async () => {
    let revoked = false;
    const { clock, mint } = await withTokens(() => !revoked);
    await mint();
    clock.pass(6_000);
    revoked = true;
    await expect(mint({ anew: true })).rejects.toMatchObject({ code: "denied" });
    clock.pass(6_000);
    await expect(mint()).rejects.toMatchObject({ code: "denied" });
  });

  test("never hands out a token that grants less than was asked for", async () => {
    const { server, mint } = await withTokens(() => false);
    await expect(mint()).rejects.toMatchObject({
      code: "denied",
      next: expect.stringContaining("right to pull"),
    });
    expect(exchanges(server)).toBe(1);
  });

  test("keeps the last one while the registry is away, until its end", async () => {
    let away = false;
    const { clock, mint } = await withTokens(() => true, { away: () => away });
    await mint();
    away = true;
    clock.pass(200_000);
    expect(secretOf(await mint())).toBe("t1");
    clock.pass(200_000);
    await expect(mint()).rejects.toMatchObject({ code: "unreachable" });
  });

  test("goes on before half of its life for who comes a little early, and leaves the old one while that fails", async () => {
    let made = 0;
    let away = false;
    const { server, clock, mint } = await scene(({ url, headers }, host) => {
      if (url.pathname === "/token" && away) return { status: 503 };
      if (url.pathname === "/token") {
        made += 1;
        return { status: 200, body: JSON.stringify({ token: `t${made}`, expires_in: 300 }) };
      }
      if (headers.get("authorization")?.startsWith("Bearer ")) return manifest;
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${host}/token"` } };
    });
    await mint();
    clock.pass(145_000);
    away = true;
    expect(secretOf(await mint({ early: true }))).toBe("t1");
    expect(secretOf(await mint())).toBe("t1");
    away = false;
    expect(secretOf(await mint({ early: true }))).toBe("t2");
    expect(secretOf(await mint({ early: true }))).toBe("t2");
    expect(secretOf(await mint())).toBe("t2");
    expect(exchanges(server)).toBe(3);
  });

  test("repeats no password where the token service gives refresh tokens, also when workers come early", async () => {
    const { server, clock, mint } = await scene(({ method, url, headers }, host) => {
      if (url.pathname === "/token" && method === "POST")
        return { status: 200, body: '{"access_token":"t","expires_in":300}' };
      if (url.pathname === "/token")
        return { status: 200, body: '{"token":"t","refresh_token":"r","expires_in":300}' };
      if (headers.get("authorization") === "Bearer t") return manifest;
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${host}/token"` } };
    });
    await mint();
    for (let renewal = 0; renewal < 5; renewal += 1) {
      clock.pass(145_000);
      await mint({ early: true });
    }
    const logins = server.lines().filter((line) => line.endsWith("/token"));
    expect(logins).toEqual(["GET /token", "GET /token", ...Array(4).fill("POST /token")]);
  });

  test("of an issuer that is away serves others until its end, whoever came early", async () => {
    const lifeMs = 12 * 3600_000;
    let away = false;
    const { server, clock, mint } = await scene(({ headers }) =>
      headers.get("authorization")?.startsWith("Basic ")
        ? manifest
        : { status: 401, headers: { "www-authenticate": 'Basic realm="ecr"' } },
    );
    const issuer = numberedProvider(server.host, awsPassword(new Date(startMs + lifeMs)));
    const provider: CredentialProvider = {
      ...issuer,
      authorization: async (limit, options) => {
        if (away && options?.refresh === true)
          throw new CredentialError("provider_unreachable", "AWS is away");
        return await issuer.authorization(limit, options);
      },
    };
    await mint({}, provider);
    clock.pass(0.48 * lifeMs);
    away = true;
    expect(secretOf(await mint({ early: true }, provider))).toBe("1");
    clock.pass(0.48 * lifeMs);
    expect(secretOf(await mint({}, provider))).toBe("1");
  });

  test("is not handed on when its credential turns out to be revoked, though it lives on where it is", async () => {
    let status = 200;
    const { clock, mint } = await scene(({ url, headers }, host) => {
      if (url.pathname === "/token") return { status, body: '{"token":"t","expires_in":300}' };
      if (headers.get("authorization") === "Bearer t") return manifest;
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${host}/token"` } };
    });
    await mint();
    clock.pass(140_000);
    status = 401;
    await expect(mint({ early: true })).rejects.toMatchObject({ code: "unauthorized" });
    await expect(mint()).rejects.toMatchObject({ code: "unauthorized" });
  });

  test("says so when the token service hands the credential back", async () => {
    const { mint } = await scene(({ url, headers }, host) => {
      if (url.pathname === "/token") return { status: 200, body: '{"token":"cHc="}' };
      if (headers.get("authorization") === "Bearer cHc=") return manifest;
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${host}/token"` } };
    });
    expect(await mint()).toMatchObject({ scope: expect.stringContaining("all that the credential may") });
  });

  test("tells a refusal by name", async () => {
    const { mint } = await withTokens(() => true, { status: 401 });
    await expect(mint()).rejects.toMatchObject({ code: "unauthorized" });
  });

  test("gives what the credential's issuer made where the registry takes only that, and a new one at half of its life", async () => {
    const lifeMs = 12 * 3600_000;
    const { server, clock, mint } = await scene(({ headers }) =>
      headers.get("authorization")?.startsWith("Basic ")
        ? manifest
        : { status: 401, headers: { "www-authenticate": 'Basic realm="ecr"' } },
    );
    const provider = numberedProvider(server.host, (number) =>
      awsPassword(new Date(startMs + (lifeMs / 2) * (number + 1)))(number),
    );
    const first = await mint({}, provider);
    expect(first).toMatchObject({
      authorization: { kind: "basic", username: "AWS", preemptive: true },
      validUntil: new Date(startMs + lifeMs),
      scope: expect.stringContaining("every repository"),
    });
    clock.pass(lifeMs / 2);
    expect([secretOf(first), secretOf(await mint({}, provider))]).toEqual(["1", "2"]);
    expect(provider.refreshes()).toBe(1);
  });

  test("gives nothing where the registry takes only the password itself, and asks for that once", async () => {
    const { server, mint } = await scene(({ headers }) =>
      headers.get("authorization") === basic("alice:pw")
        ? manifest
        : { status: 401, headers: { "www-authenticate": 'Basic realm="r"' } },
    );
    expect(await mint()).toBeUndefined();
    const before = server.requests.length;
    expect(await mint()).toBeUndefined();
    expect(server.requests).toHaveLength(before);
  });

  test("says so where the registry asks for nothing, and mints as soon as it does", async () => {
    let isOpen = true;
    const { mint } = await scene(({ url, headers }, host) => {
      if (url.pathname === "/token") return { status: 200, body: '{"token":"t","expires_in":300}' };
      if (isOpen || headers.get("authorization") === "Bearer t") return manifest;
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${host}/token"` } };
    });
    expect(await mint()).toBe("unasked");
    isOpen = false;
    expect(secretOf(await mint())).toBe("t");
  });

  test("gives nothing for a public image", async () => {
    const { server, mint } = await withTokens(() => true);
    expect(await mint({}, anonymousProvider(server.host))).toBeUndefined();
    expect(server.requests).toHaveLength(0);
  });
});

describe("what a token is good for", () => {
  const jwt = (access: unknown): string =>
    `h.${Buffer.from(JSON.stringify({ access })).toString("base64url")}.s`;
  const pull = { type: "repository", name: "acme/app", actions: ["pull"] };
  test.each([
    ["r.test", "opaque", "pull acme/app"],
    ["r.test", jwt([pull]), "pull acme/app"],
    ["r.test", jwt([pull, { ...pull, name: "acme/other" }]), expect.stringContaining("and more")],
    ["r.test", jwt([{ ...pull, actions: ["pull", "push"] }]), expect.stringContaining("and more")],
    ["ghcr.io", "opaque", expect.stringContaining("does not narrow")],
  ])("on %s, as %s: %s", (registry, token, expected) => {
    const where = { registry, repository: "acme/app" };
    expect(grantedBy({ kind: "bearer", token: new Redacted(token) }, where)).toEqual(expected);
  });
});
