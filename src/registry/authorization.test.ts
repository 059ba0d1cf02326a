import { afterEach, describe, expect, test } from "bun:test";
import { createProvider } from "../credential/create-provider.ts";
import type { CredentialProvider } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import { Redacted } from "../std/redacted.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage } from "./image.test-kit.ts";
import { basicProvider, repositoryAt, virtualClock } from "./quirks.test-kit.ts";
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

test("a credential is good once a request that carried it was answered, and not where nobody asked for it", async () => {
  let isOpen = true;
  const server = await serve(({ headers }) =>
    isOpen || headers.get("authorization") === `Basic ${btoa("alice:pw")}`
      ? manifest
      : { status: 401, headers: { "www-authenticate": 'Basic realm="r"' } },
  );
  const repository = repositoryAt(server.host, { password: "pw" });
  await head(repository);
  expect(repository.tookCredential()).toBe(false);
  isOpen = false;
  await head(repository);
  expect(repository.tookCredential()).toBe(true);
  const wrong = repositoryAt(server.host, { password: "another" });
  await expect(head(wrong)).rejects.toMatchObject({ code: "unauthorized" });
  expect(wrong.tookCredential()).toBe(false);
});

describe("authorization without tokens", () => {
  const basicOnly =
    (good: string) =>
    (request: RawRequest): RawReply => {
      const header = request.headers.get("authorization");
      const expected = `Basic ${Buffer.from(good).toString("base64")}`;
      return header === expected
        ? manifest
        : { status: 401, headers: { "www-authenticate": 'Negotiate, Basic realm="r"' } };
    };

  test("is basic where the registry offers it, from then on at once", async () => {
    const server = await serve(basicOnly("alice:pw"));
    const repository = repositoryAt(server.host, { password: "pw" });
    await head(repository);
    const before = server.requests.length;
    await head(repository);
    expect(server.requests.slice(before).every(({ headers }) => headers.has("authorization"))).toBe(true);
  });

  test("does not repeat a wrong password", async () => {
    const server = await serve(basicOnly("alice:pw"));
    const clock = virtualClock();
    const repository = repositoryAt(server.host, { password: "wrong", clock });
    for (let round = 0; round < 3; round += 1)
      await expect(head(repository)).rejects.toMatchObject({ code: "unauthorized" });
    expect(server.requests.filter(({ headers }) => headers.has("authorization"))).toHaveLength(1);
    clock.pass(5000);
    await expect(head(repository)).rejects.toMatchObject({ code: "unauthorized" });
    expect(server.requests.filter(({ headers }) => headers.has("authorization"))).toHaveLength(2);
  });

  test("renews an issued password, once, on the 403 that ECR gives to an expired one", async () => {
    const issued: boolean[] = [];
    let good = "AWS:1";
    const server = await serve(({ headers }) => {
      const header = headers.get("authorization");
      if (header === null) return { status: 401, headers: { "www-authenticate": 'Basic realm="ecr"' } };
      return header === `Basic ${Buffer.from(good).toString("base64")}` ? manifest : { status: 403 };
    });
    const provider: CredentialProvider = {
      registry: server.host,
      type: "aws",
      renewable: true,
      fingerprint: "ecr",
      authorization: async (_, options) => {
        if (options?.refresh) issued.push(true);
        const password = new Redacted(String(issued.length + 1));
        return { kind: "basic", username: "AWS", password, expiresAt: new Date(0) };
      },
    };
    const repository = repositoryAt(server.host, { provider });
    await head(repository);
    good = "AWS:2";
    await head(repository);
    expect(issued).toHaveLength(1);
    good = "AWS:never";
    await expect(head(repository)).rejects.toMatchObject({ code: "denied" });
    expect(issued).toHaveLength(1);
  });

  test("hands a bearer token over as it is", async () => {
    const server = await serve(({ headers }) =>
      headers.get("authorization") === "Bearer t" ? manifest : { status: 401 },
    );
    const credentials = credentialMap({ REGISTRY_TOKEN: "t" });
    await head(
      repositoryAt(server.host, {
        provider: createProvider({ registry: server.host, type: "token", credentials }),
      }),
    );
    expect(server.requests).toHaveLength(2);
  });

  test("stays apart for two credentials of one registry", async () => {
    const server = await serve(basicOnly("alice:pw"));
    const good = repositoryAt(server.host, { provider: basicProvider(server.host, "pw") });
    await head(good);
    await expect(head(repositoryAt(server.host))).rejects.toMatchObject({ code: "unauthorized" });
    await expect(head(repositoryAt(server.host, { password: "other" }))).rejects.toMatchObject({
      code: "unauthorized",
    });
  });
});
