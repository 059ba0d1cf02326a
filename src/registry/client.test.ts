import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createProvider } from "../credential/create-provider.ts";
import { anonymousProvider, type CredentialProvider } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import { parseReference } from "../reference/reference.ts";
import { RegistryClient } from "./client.ts";
import { mediaTypes } from "./descriptor.ts";
import { type DockerRegistry, startDockerRegistry } from "./docker-registry.test-kit.ts";
import { RegistryError, type RegistryErrorCode } from "./error.ts";
import { makeImage, makeIndex, pushImage, pushManifest } from "./image.test-kit.ts";
import { blobSource } from "./repository.ts";
import { startTokenService, type TokenService } from "./token-service.test-kit.ts";

const signal = new AbortController().signal;
const amd64 = { os: "linux", architecture: "amd64" };
const image = makeImage();
const arm = makeImage({ architecture: "arm64" });

function clientFor(...hosts: readonly string[]): RegistryClient {
  return new RegistryClient({ policy: { insecureHosts: new Set(hosts), privateHosts: new Set() } });
}

function basic(registry: string, username: string, password: string): CredentialProvider {
  const credentials = credentialMap({ USERNAME: username, PASSWORD: password });
  return createProvider({ registry, type: "basic", credentials });
}

async function codeOf(work: Promise<unknown>): Promise<RegistryErrorCode | undefined> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error !== undefined && !(error instanceof RegistryError)) throw error;
  return error?.code;
}

describe("a registry with htpasswd", () => {
  let registry: DockerRegistry;
  const basicAuth = { Authorization: `Basic ${Buffer.from("alice:open sésame").toString("base64")}` };

  beforeAll(async () => {
    registry = await startDockerRegistry({ kind: "htpasswd", username: "alice", password: "open sésame" });
    await pushImage(registry.host, "acme/app", "1", image, basicAuth);
    await pushImage(registry.host, "acme/app", "arm", arm, basicAuth);
    const index = makeIndex({ "linux/amd64": image, "linux/arm64/v8": arm });
    await pushManifest(registry.host, "acme/app", "all", index, mediaTypes.ociIndex, basicAuth);
  });
  afterAll(() => registry.stop());

  const repository = (text: string, password = "open sésame") =>
    clientFor(registry.host).repository(
      parseReference(`${registry.host}/${text}`),
      basic(registry.host, "alice", password),
    );

  test("resolves a tag to a manifest, a configuration and layers", async () => {
    const resolved = await repository("acme/app:1").resolve(amd64, signal);
    expect(resolved.manifest).toEqual(image.manifest);
    expect(resolved.layers).toEqual(image.layers);
    expect(resolved.manifestBytes).toEqual(Buffer.from(image.manifestBytes));
    expect(resolved.imageConfig.config.Cmd).toEqual(["/bin/true"]);
  });

  test("picks the platform from an index, and names what there is when it lacks one", async () => {
    const resolved = await repository("acme/app:all").resolve({ os: "linux", architecture: "arm64" }, signal);
    expect(resolved.manifest.digest).toBe(arm.manifest.digest);
    const refused = repository("acme/app:all").resolve({ os: "linux", architecture: "s390x" }, signal);
    await expect(refused).rejects.toMatchObject({
      code: "no_such_platform",
      message: expect.stringContaining("linux/amd64, linux/arm64"),
    });
    expect(await codeOf(repository("acme/app:arm").resolve(amd64, signal))).toBe("no_such_platform");
  });

  test("heads a tag and a digest without their bodies", async () => {
    const asked = repository("acme/app:1");
    expect(await asked.headManifest("1", signal)).toEqual(image.manifest);
    expect(await asked.headManifest(image.manifest.digest, signal)).toEqual(image.manifest);
  });

  test("reads exact ranges of a blob and counts them", async () => {
    const source = blobSource(repository("acme/app:1"));
    const layer = image.layers[0]!;
    const bytes = image.blobs.get(layer.digest)!;
    expect(await source.read(layer, 1000, 5000, signal)).toEqual(bytes.slice(1000, 5000));
    expect(await source.read(layer, 0, layer.size, signal)).toEqual(new Uint8Array(bytes));
    expect(await source.read(layer, layer.size - 1, layer.size, signal)).toEqual(bytes.slice(-1));
    expect(source.stats()).toEqual({ requests: 4, bytes: 4000 + layer.size + 1 });
  });

  test("streams a blob from its start and from its middle", async () => {
    const layer = image.layers[0]!;
    const bytes = Buffer.from(image.blobs.get(layer.digest)!);
    const asked = repository("acme/app:1");
    expect(Buffer.concat(await Array.fromAsync(asked.streamBlob(layer, 0, signal)))).toEqual(bytes);
    const rest = Buffer.concat(await Array.fromAsync(asked.streamBlob(layer, 12_345, signal)));
    expect(rest).toEqual(bytes.subarray(12_345));
  });

  test("tells a wrong password, a missing image and a missing credential apart", async () => {
    expect(await codeOf(repository("acme/app:1", "wrong").resolve(amd64, signal))).toBe("unauthorized");
    expect(await codeOf(repository("acme/app:2").resolve(amd64, signal))).toBe("not_found");
    expect(await codeOf(repository("acme/none:1").headManifest("1", signal))).toBe("not_found");
    const anonymous = clientFor(registry.host).repository(
      parseReference(`${registry.host}/acme/app:1`),
      anonymousProvider(registry.host),
    );
    await expect(anonymous.resolve(amd64, signal)).rejects.toMatchObject({
      code: "unauthorized",
      message: expect.stringContaining("needs a credential"),
      next: expect.stringContaining("--creds"),
    });
  });

  test("refuses a credential that is for another registry", () => {
    const other = basic("ghcr.io", "alice", "open sésame");
    const reference = parseReference(`${registry.host}/acme/app:1`);
    expect(() => clientFor(registry.host).repository(reference, other)).toThrow("not for");
  });

  test("refuses plain HTTP and loopback unless the operator listed the host", async () => {
    const reference = parseReference(`${registry.host}/acme/app:1`);
    const asked = clientFor().repository(reference, basic(registry.host, "alice", "open sésame"));
    expect(await codeOf(asked.resolve(amd64, signal))).toBe("egress_refused");
  });

  test("stops when the caller does, with the caller's reason", async () => {
    const controller = new AbortController();
    const layer = image.layers[0]!;
    const stream = repository("acme/app:1").streamBlob(layer, 0, controller.signal)[Symbol.asyncIterator]();
    await stream.next();
    controller.abort(new Error("enough"));
    await expect(Array.fromAsync({ [Symbol.asyncIterator]: () => stream })).rejects.toThrow("enough");
  });
});

describe("a registry with bearer tokens", () => {
  let registry: DockerRegistry;
  let tokens: TokenService;

  beforeAll(async () => {
    const users = {
      alice: { password: "pw", repositories: ["acme/app"] },
      bob: { password: "pw", repositories: [] },
    };
    tokens = await startTokenService({ users });
    registry = await startDockerRegistry({ kind: "token", ...tokens });
    const push = new URL(tokens.realm);
    push.searchParams.set("scope", "repository:acme/app:pull,push");
    const headers = { Authorization: `Basic ${Buffer.from("alice:pw").toString("base64")}` };
    const { token } = (await (await fetch(push, { headers })).json()) as { token: string };
    await pushImage(registry.host, "acme/app", "1", image, { Authorization: `Bearer ${token}` });
  });
  afterAll(async () => {
    await registry.stop();
    await tokens.stop();
  });

  const repository = (client: RegistryClient, user: string, password = "pw", name = "acme/app:1") =>
    client.repository(parseReference(`${registry.host}/${name}`), basic(registry.host, user, password));
  const client = () => clientFor(registry.host, new URL(tokens.realm).host);

  test("exchanges the credential once for many requests", async () => {
    const before = tokens.requests.length;
    const shared = client();
    const asked = repository(shared, "alice");
    const layer = image.layers[0]!;
    await Promise.all([asked.resolve(amd64, signal), repository(shared, "alice").headManifest("1", signal)]);
    const ranges = [0, 1, 2, 3, 4, 5].map((step) =>
      asked.openBlob(layer, step * 100, step * 100 + 100, signal),
    );
    await Promise.all(ranges);
    expect(tokens.requests.slice(before)).toEqual(["GET alice repository:acme/app:pull"]);
  });

  test("tells a wrong password from an account without the right to pull", async () => {
    expect(await codeOf(repository(client(), "alice", "wrong").resolve(amd64, signal))).toBe("unauthorized");
    expect(await codeOf(repository(client(), "bob").resolve(amd64, signal))).toBe("denied");
    expect(await codeOf(repository(client(), "alice", "pw", "acme/app:9").resolve(amd64, signal))).toBe(
      "not_found",
    );
  });

  test("does not send a wrong password again for a while", async () => {
    const before = tokens.requests.length;
    const asked = repository(client(), "alice", "wrong");
    expect(await codeOf(asked.headManifest("1", signal))).toBe("unauthorized");
    expect(await codeOf(asked.headManifest("1", signal))).toBe("unauthorized");
    expect(tokens.requests.slice(before)).toHaveLength(1);
  });

  test("sends no credential to a token service that the operator did not approve", async () => {
    const before = tokens.requests.length;
    const asked = repository(clientFor(registry.host), "alice");
    expect(await codeOf(asked.headManifest("1", signal))).toBe("egress_refused");
    expect(tokens.requests.slice(before)).toEqual([]);
  });
});
