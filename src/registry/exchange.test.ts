import { afterEach, describe, expect, test } from "bun:test";
import { createProvider } from "../credential/create-provider.ts";
import type { CredentialProvider } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage } from "./image.test-kit.ts";
import { awsPassword, numberedProvider } from "./issuer.test-kit.ts";
import { repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, type RawServer, startRawServer } from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const signal = new AbortController().signal;
const image = makeImage();
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

const manifest: RawReply = {
  status: 200,
  headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest },
  body: image.manifestBytes,
};
const head = (of: Repository): Promise<unknown> => of.headManifest("1", signal);
const json = (fields: object, status = 200): RawReply => ({ status, body: JSON.stringify(fields) });

interface Service {
  readonly server: RawServer;
  /** What the token service was asked: `GET basic scope=1 offline`. */
  readonly asked: string[];
}

/** A registry that takes those tokens of its token service that are good. */
async function registryWith(
  answer: (request: RawRequest, count: number) => RawReply,
  good: (token: string) => boolean = () => true,
): Promise<Service> {
  const asked: string[] = [];
  const server = await startRawServer((request) => {
    const { url, headers, method, body } = request;
    if (url.pathname === "/token") {
      asked.push(
        describeAsked(method, headers, method === "POST" ? new URLSearchParams(body) : url.searchParams),
      );
      return answer(request, asked.length);
    }
    const token = /^Bearer (.*)$/.exec(headers.get("authorization") ?? "")?.[1];
    if (token !== undefined && good(token)) return manifest;
    return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${server.host}/token"` } };
  });
  servers.push(server);
  return { server, asked };
}

function describeAsked(method: string, headers: Headers, parameters: URLSearchParams): string {
  const parts = [method];
  if (headers.has("authorization")) parts.push("password");
  if (parameters.has("refresh_token")) parts.push(`refresh=${parameters.get("refresh_token")}`);
  if (parameters.get("offline_token") === "true") parts.push("offline");
  if (!parameters.has("scope")) parts.push("login only");
  return parts.join(" ");
}

describe("a refresh token", () => {
  test("is asked for at the second exchange, and sent in place of the password from then on", async () => {
    const clock = virtualClock();
    const { server, asked } = await registryWith(({ method, url }, count) => {
      const refresh =
        url.searchParams.has("offline_token") || method === "POST" ? { refresh_token: `r${count}` } : {};
      return json({ token: "t", expires_in: 100, ...refresh });
    });
    const repository = repositoryAt(server.host, { password: "pw", clock });
    for (let round = 0; round < 4; round += 1) {
      await head(repository);
      clock.pass(60_000);
    }
    expect(asked).toEqual(["GET password", "GET password offline", "POST refresh=r2", "POST refresh=r3"]);
  });

  test("that is refused is given up for the password, in the same request", async () => {
    const clock = virtualClock();
    const { server, asked } = await registryWith(({ method }, count) =>
      method === "POST" && count > 3
        ? json({ error: "invalid_grant" }, 400)
        : json({ token: "t", expires_in: 100, refresh_token: "r" }),
    );
    const repository = repositoryAt(server.host, { password: "pw", clock });
    for (let round = 0; round < 4; round += 1) {
      await head(repository);
      clock.pass(60_000);
    }
    expect(asked).toEqual([
      "GET password",
      "GET password offline",
      "POST refresh=r",
      "POST refresh=r",
      "GET password offline",
    ]);
  });

  test("that the service does not take by POST is not asked for again", async () => {
    const clock = virtualClock();
    const { server, asked } = await registryWith(({ method, headers }) => {
      if (method === "POST") return { status: 404 };
      const pair = Buffer.from(headers.get("authorization")?.slice(6) ?? "", "base64").toString();
      return pair === "alice:pw"
        ? json({ token: "t", expires_in: 100, refresh_token: "r" })
        : { status: 401 };
    });
    const repository = repositoryAt(server.host, { password: "pw", clock });
    for (let round = 0; round < 5; round += 1) {
      await head(repository);
      clock.pass(60_000);
    }
    expect(asked.filter((one) => one.startsWith("POST"))).toHaveLength(1);
    expect(asked.slice(-2)).toEqual(["GET password", "GET password"]);
  });

  test("is not used any more once a token that came of it is refused before its end", async () => {
    const clock = virtualClock();
    let refused = "";
    const { server, asked } = await registryWith(
      (_, count) => json({ token: `t${count}`, expires_in: 100, refresh_token: "r" }),
      (token) => token !== refused,
    );
    const repository = repositoryAt(server.host, { password: "pw", clock });
    for (let round = 0; round < 3; round += 1) {
      await head(repository);
      clock.pass(60_000);
    }
    await head(repository);
    refused = "t4";
    clock.pass(10_000);
    await head(repository);
    expect(asked.slice(2)).toEqual(["POST refresh=r", "POST refresh=r", "GET password offline"]);
  });

  test("is not kept where nobody asked for one", async () => {
    const clock = virtualClock();
    const { server, asked } = await registryWith(() =>
      json({ token: "t", expires_in: 100, refresh_token: "r" }),
    );
    const provider = numberedProvider(server.host, awsPassword());
    const repository = repositoryAt(server.host, { provider, clock });
    for (let round = 0; round < 3; round += 1) {
      await head(repository);
      clock.pass(60_000);
    }
    expect(asked).toEqual(["GET password", "GET password", "GET password"]);
  });
});

describe("a token service that denies", () => {
  const denied = json({ errors: [{ code: "DENIED", message: "denied" }] }, 403);

  test("the repository and not the login has named a missing right", async () => {
    const { server, asked } = await registryWith(({ url }) =>
      url.searchParams.has("scope") ? denied : json({ token: "t" }),
    );
    await expect(head(repositoryAt(server.host, { password: "pw" }))).rejects.toMatchObject({
      code: "denied",
      message: expect.stringContaining("or there is no such image"),
    });
    expect(asked).toEqual(["GET password", "GET password login only"]);
  });

  test("the login as well has named a bad password", async () => {
    const { server } = await registryWith(() => denied);
    await expect(head(repositoryAt(server.host, { password: "pw" }))).rejects.toMatchObject({
      code: "unauthorized",
      next: expect.stringContaining("Check user name and password"),
    });
  });

  test("somebody without a credential has named one that is needed", async () => {
    const { server } = await registryWith(() => denied);
    await expect(head(repositoryAt(server.host))).rejects.toMatchObject({
      code: "unauthorized",
      message: expect.stringContaining("needs a credential, or does not exist"),
    });
  });
});

describe("the life of a token", () => {
  test("may be written as text", async () => {
    const clock = virtualClock();
    const { server, asked } = await registryWith(() => json({ token: "t", expires_in: "300" }));
    const repository = repositoryAt(server.host, { clock });
    await head(repository);
    clock.pass(149_000);
    await head(repository);
    expect(asked).toHaveLength(1);
  });
});

describe("a token that says when it ends, and that it has", () => {
  const startMs = Date.UTC(2026, 0, 1);
  const jwt = (exp: number): string => `h.${Buffer.from(JSON.stringify({ exp })).toString("base64url")}.s`;
  const ecr = (expiration: number): string => Buffer.from(JSON.stringify({ expiration })).toString("base64");
  const cases: [string, (end: number) => Record<string, string>, CredentialProvider["type"]][] = [
    ["bearer", (end) => ({ REGISTRY_TOKEN: jwt(end) }), "token"],
    ["identity", (end) => ({ REGISTRY_IDENTITY_TOKEN: jwt(end) }), "token"],
    ["JWT as a password", (end) => ({ USERNAME: "ci", PASSWORD: jwt(end) }), "basic"],
    ["password of ECR", (end) => ({ USERNAME: "AWS", PASSWORD: ecr(end) }), "basic"],
  ];

  test.each(cases)("(%s) is told without being sent", async (_, keys, type) => {
    const server = await startRawServer(() => ({
      status: 401,
      headers: { "www-authenticate": 'Basic realm="r"' },
    }));
    servers.push(server);
    const clock = virtualClock(startMs);
    const make = (end: number): Repository => {
      const credentials = credentialMap(keys(end));
      return repositoryAt(server.host, {
        clock,
        provider: createProvider({ registry: server.host, type, credentials }),
      });
    };
    await expect(head(make(startMs / 1000 - 3600))).rejects.toMatchObject({
      code: "expired",
      message: expect.stringContaining("it ended at 2025-12-31T23:00:00Z, now it is 2026-01-01T00:00:00Z"),
      next: expect.stringContaining("Make a new one"),
    });
    expect(server.requests.filter(({ headers }) => headers.has("authorization"))).toHaveLength(0);
    await expect(head(make(startMs / 1000 + 3600))).rejects.toMatchObject({ code: "unauthorized" });
  });
});
