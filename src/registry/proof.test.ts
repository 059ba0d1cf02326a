import { afterEach, describe, expect, test } from "bun:test";
import { CredentialError } from "../credential/error.ts";
import { IssuedAuthorizations } from "../credential/issued.ts";
import { issuedProvider } from "../credential/issued-provider.ts";
import type { CredentialProvider } from "../credential/provider.ts";
import { parseReference } from "../reference/reference.ts";
import { Redacted } from "../std/redacted.ts";
import { RegistryClient } from "./client.ts";
import { mediaTypes } from "./descriptor.ts";
import { FailedLogins } from "./failed-logins.ts";
import { makeImage } from "./image.test-kit.ts";
import type { Minted } from "./mint.ts";
import { basicProvider, type VirtualClock, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, type RawServer, startRawServer } from "./raw-server.test-kit.ts";

const signal = new AbortController().signal;
const image = makeImage();
const minute = 60_000;
const withinMs = 15 * minute;
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

const manifest: RawReply = {
  status: 200,
  headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest },
  body: image.manifestBytes,
};

async function serve(handle: (request: RawRequest, host: string) => RawReply): Promise<RawServer> {
  const server = await startRawServer((request) => handle(request, server.host));
  servers.push(server);
  return server;
}

/** What mints for one manifest of the server's, on a clock that is moved by hand. */
function minting(server: RawServer, make: (clock: VirtualClock) => CredentialProvider) {
  const clock = virtualClock();
  const policy = {
    insecureHosts: new Set([server.host]),
    privateHosts: new Set<string>(),
    trialEveryMs: 5,
    attemptsMax: 1,
    totalTimeoutMs: 500,
  };
  const client = new RegistryClient({ policy, clock, failedLogins: new FailedLogins() });
  const reference = parseReference(`${server.host}/acme/app@${image.manifest.digest}`);
  const provider = make(clock);
  const mint = (life?: number): Promise<Minted> =>
    client.mintPull(reference, provider, signal, life === undefined ? {} : { withinMs: life });
  return { clock, mint, peek: () => client.mintedPull(reference, provider) };
}

describe("a token service, whose tokens and refresh tokens live for hours", () => {
  async function scene() {
    const state = { revoked: false, away: false, tokens: 0 };
    const server = await serve(({ method, url, headers }, host) => {
      if (url.pathname === "/token") {
        if (state.away) return { status: 503 };
        // A refresh token outlives its account here, as it does at registries that look at nothing else.
        if (method === "GET" && state.revoked) return { status: 401 };
        state.tokens += 1;
        const token = { token: `t${state.tokens}`, refresh_token: "r", expires_in: 8 * 3600 };
        return { status: 200, body: JSON.stringify({ ...token, access_token: token.token }) };
      }
      if (headers.get("authorization")?.startsWith("Bearer t") === true) return manifest;
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${host}/token"` } };
    });
    const logins = (): number => server.lines().filter((line) => line === "GET /token").length;
    return { state, server, logins, ...minting(server, () => basicProvider(server.host, "pw")) };
  }

  test("is asked with the credential itself once a proof is too old, and by nobody before", async () => {
    const { server, clock, logins, mint } = await scene();
    await mint(withinMs);
    clock.pass(withinMs - 1);
    const asked = server.requests.length;
    await mint(withinMs);
    expect(server.requests).toHaveLength(asked);
    for (let again = 0; again < 3; again += 1) {
      clock.pass(withinMs);
      await Promise.all([mint(withinMs), mint(withinMs), mint(withinMs)]);
    }
    expect(logins()).toBe(4);
    expect(server.lines()).not.toContain("POST /token");
  });

  test("dates a proof by the credential's own use: a refresh token's is as old as that", async () => {
    const { clock, mint, peek } = await scene();
    await mint(withinMs);
    clock.pass(4 * 3600_000);
    await mint();
    clock.pass(4 * 3600_000);
    await mint();
    const made = peek();
    expect(made).toMatchObject({ proved: { at: new Date(clock.now()) } });
    const agoMs = made === undefined || made === "over" ? Number.NaN : clock.now() - made.provedAt.getTime();
    expect(agoMs).toBe(4 * 3600_000);
  });

  test("whose account was revoked proves nothing after that, and nothing of it is handed out any more", async () => {
    const { state, clock, mint, peek } = await scene();
    await mint(withinMs);
    state.revoked = true;
    clock.pass(withinMs - 1);
    expect(await mint(withinMs)).toBeObject();
    clock.pass(1);
    await expect(mint(withinMs)).rejects.toMatchObject({ code: "unauthorized" });
    expect(peek()).toBeUndefined();
  });

  test("whose account was revoked is heard at once where each start is to prove itself", async () => {
    const { state, logins, mint } = await scene();
    await mint(0);
    await mint(0);
    expect(logins()).toBe(2);
    state.revoked = true;
    await expect(mint(0)).rejects.toMatchObject({ code: "unauthorized" });
  });

  test("that is away proves nothing, and what it gave before serves who runs already", async () => {
    const { state, clock, mint } = await scene();
    await mint(withinMs);
    state.away = true;
    clock.pass(withinMs);
    await expect(mint(withinMs)).rejects.toMatchObject({ code: "unreachable" });
    expect(await mint()).toBeObject();
  });
});

describe("a cloud's issuer, which makes passwords of twelve hours", () => {
  const lifeMs = 12 * 3600_000;

  async function scene() {
    const state: { asked: number; error: CredentialError | undefined } = { asked: 0, error: undefined };
    const server = await serve(({ headers }) =>
      headers.get("authorization") === null
        ? { status: 401, headers: { "www-authenticate": 'Basic realm="ecr"' } }
        : manifest,
    );
    const provider = (clock: VirtualClock): CredentialProvider =>
      issuedProvider(
        { registry: server.host, type: "aws", fingerprint: crypto.randomUUID() },
        { lifeMs, marginMs: 3600_000 },
        async () => {
          state.asked += 1;
          if (state.error !== undefined) throw state.error;
          const password = new Redacted(`p${state.asked}`);
          return { kind: "basic", username: "AWS", password, expiresAt: new Date(clock.now() + lifeMs) };
        },
        { issued: new IssuedAuthorizations(clock.now) },
      );
    return { state, ...minting(server, provider) };
  }

  test("is asked again once a proof is too old, though what it made lives on", async () => {
    const { state, clock, mint } = await scene();
    await mint(withinMs);
    clock.pass(withinMs - 1);
    await mint(withinMs);
    expect(state.asked).toBe(1);
    clock.pass(1);
    await mint(withinMs);
    expect(state.asked).toBe(2);
    await mint(0);
    expect(state.asked).toBe(3);
  });

  test("that refuses the keys ends what they prove, twelve hours early", async () => {
    const { state, clock, mint, peek } = await scene();
    await mint(withinMs);
    state.error = new CredentialError("provider_failed", "AWS does not know the keys");
    clock.pass(withinMs);
    await expect(mint(withinMs)).rejects.toBe(state.error);
    expect(peek()).toBeUndefined();
  });

  test("that is away proves nothing, and what it made serves who runs already", async () => {
    const { state, clock, mint } = await scene();
    await mint(withinMs);
    state.error = new CredentialError("provider_unreachable", "AWS is away");
    clock.pass(withinMs);
    await expect(mint(withinMs)).rejects.toBe(state.error);
    expect(await mint()).toBeObject();
  });
});
