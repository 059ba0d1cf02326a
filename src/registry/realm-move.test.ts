import { afterEach, describe, expect, test } from "bun:test";
import type { CredentialProvider } from "../credential/provider.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage } from "./image.test-kit.ts";
import { basicProvider, repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawServer, startRawServer } from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const image = makeImage();
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

const head = (of: Repository): Promise<unknown> => of.headManifest("1", new AbortController().signal);

/** A registry whose token service is at `/old`, and from the move on at the path that challenges then name. */
async function movingRegistry() {
  const state = { path: "/old", count: 0, good: "", serves: true, gone: { status: 404 } as RawReply };
  const asked: string[] = [];
  const server = await startRawServer(({ url, headers }): RawReply => {
    if (!url.pathname.startsWith("/v2/")) {
      asked.push(url.pathname);
      if (url.pathname !== state.path || !state.serves) return state.gone;
      state.count += 1;
      state.good = `t${state.count}`;
      return { status: 200, body: JSON.stringify({ token: state.good, expires_in: 100 }) };
    }
    if (headers.get("authorization") === `Bearer ${state.good}`)
      return {
        status: 200,
        headers: { "content-type": mediaTypes.ociManifest },
        body: image.manifestBytes,
      };
    const realm = `http://${url.host}${state.path}`;
    return { status: 401, headers: { "www-authenticate": `Bearer realm="${realm}",service="s"` } };
  });
  servers.push(server);
  const clock = virtualClock();
  return { state, asked, clock, repository: repositoryAt(server.host, { password: "pw", clock }) };
}

describe("a token service that has moved", () => {
  test("is asked where the registry's newest challenge says, when that refuses the old token", async () => {
    const { state, asked, repository } = await movingRegistry();
    await head(repository);
    Object.assign(state, { path: "/new", good: "another" });
    await head(repository);
    expect(asked).toEqual(["/old", "/new"]);
  });

  test.each([404, 301])("is asked for at the registry when the old place answers %p", async (status) => {
    const { state, asked, clock, repository } = await movingRegistry();
    await head(repository);
    Object.assign(state, { path: "/new", gone: { status, headers: { location: "/new" } } });
    clock.pass(100_000);
    await head(repository);
    expect(asked).toEqual(["/old", "/old", "/new"]);
  });

  test("and is not there either is an error that says so, after one look", async () => {
    const { state, asked, clock, repository } = await movingRegistry();
    await head(repository);
    Object.assign(state, { path: "/new", serves: false });
    clock.pass(100_000);
    await expect(head(repository)).rejects.toMatchObject({ code: "protocol" });
    expect(asked).toEqual(["/old", "/old", "/new"]);
  });

  test("to a host that must not have the credential is not followed", async () => {
    const { state, asked, repository } = await movingRegistry();
    await head(repository);
    Object.assign(state, { path: "@evil.com/new", good: "another" });
    await expect(head(repository)).rejects.toMatchObject({ code: "egress_refused" });
    expect(asked).toEqual(["/old", "/old"]);
  });
});

test("a token service that may have no credential gets none, also when there was none to begin with", async () => {
  const asked: string[] = [];
  const server = await startRawServer(({ url, headers }): RawReply => {
    const authorization = headers.get("authorization");
    if (url.pathname === "/token") {
      asked.push(`${headers.get("host")} ${authorization?.split(" ")[0] ?? "nothing"}`);
      return { status: 200, body: '{"token":"t","expires_in":60}' };
    }
    if (authorization === "Bearer t")
      return {
        status: 200,
        headers: { "content-type": mediaTypes.ociManifest },
        body: image.manifestBytes,
      };
    const realm = "https://elsewhere.example/token";
    return { status: 401, headers: { "www-authenticate": `Bearer realm="${realm}",service="s"` } };
  });
  servers.push(server);
  const names = ["registry.example", "elsewhere.example"];
  const connect = new URL(`http://${server.host}`);
  const policy = {
    attemptsMax: 1,
    insecureHosts: new Set<string>(),
    hosts: new Map(names.map((name) => [name, { connect }])),
  };
  const basic = basicProvider("registry.example", "pw");
  let signedIn = false;
  const provider: CredentialProvider = {
    ...basic,
    renewable: true,
    authorization: async () => (signedIn ? await basic.authorization() : { kind: "anonymous" }),
  };
  const clock = virtualClock();
  const repository = repositoryAt("registry.example", { policy, provider, clock });
  await head(repository);
  signedIn = true;
  clock.pass(61_000);
  await expect(head(repository)).rejects.toMatchObject({ code: "egress_refused" });
  expect(asked).toEqual(["elsewhere.example nothing"]);
});
