import { afterEach, describe, expect, test } from "bun:test";
import { digestOf } from "../reference/digest.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage, makeIndex, type TestImage } from "./image.test-kit.ts";
import { repositoryAt } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, type RawServer, startRawServer } from "./raw-server.test-kit.ts";

const signal = new AbortController().signal;
const amd64 = { os: "linux", architecture: "amd64" };
const image = makeImage();
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

/** Serves what it is given under `manifests/` and `blobs/`; functions decide themselves. */
async function serve(
  paths: Readonly<Record<string, RawReply | ((request: RawRequest) => RawReply)>>,
): Promise<RawServer> {
  const server = await startRawServer((request) => {
    const found = paths[request.url.pathname.replace("/v2/acme/app/", "")];
    if (found === undefined)
      return { status: 404, body: '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"s3cr3t"}]}' };
    return typeof found === "function" ? found(request) : found;
  });
  servers.push(server);
  return server;
}

const manifestReply = (bytes: Uint8Array, type: string = mediaTypes.ociManifest): RawReply => ({
  status: 200,
  headers: { "content-type": `${type}; charset=utf-8`, "docker-content-digest": digestOf(bytes) },
  body: bytes,
});
const blobsOf = ({ blobs }: TestImage): Record<string, RawReply> =>
  Object.fromEntries([...blobs].map(([digest, body]) => [`blobs/${digest}`, { status: 200, body }]));
const byDigest = (bytes: Uint8Array, type?: string): Record<string, RawReply> => ({
  [`manifests/${digestOf(bytes)}`]: manifestReply(bytes, type),
});
const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

describe("HEAD of a manifest", () => {
  test("asks for all four kinds, once", async () => {
    const server = await serve({ "manifests/1": manifestReply(image.manifestBytes) });
    expect(await repositoryAt(server.host).headManifest("1", signal)).toEqual(image.manifest);
    expect(server.lines()).toEqual(["HEAD /v2/acme/app/manifests/1"]);
    const accept = server.requests[0]?.headers.get("accept");
    for (const type of [
      mediaTypes.ociIndex,
      mediaTypes.ociManifest,
      mediaTypes.dockerList,
      mediaTypes.dockerManifest,
    ]) {
      expect(accept).toContain(type);
    }
  });

  test.each([
    ["is refused", { status: 405 }],
    ["says no digest", { status: 200, headers: { "content-type": mediaTypes.ociManifest } }],
    [
      "says a digest that is none",
      { status: 200, headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": "x" } },
    ],
  ])("falls back to GET when it %s", async (_, reply) => {
    const server = await serve({
      "manifests/1": ({ method }) => (method === "HEAD" ? reply : manifestReply(image.manifestBytes)),
    });
    expect(await repositoryAt(server.host).headManifest("1", signal)).toEqual(image.manifest);
  });

  test("of another digest than the one asked for is refused", async () => {
    const digest = digestOf(json({}));
    const server = await serve({ [`manifests/${digest}`]: manifestReply(image.manifestBytes) });
    await expect(repositoryAt(server.host).headManifest(digest, signal)).rejects.toMatchObject({
      code: "digest_mismatch",
    });
  });

  test("refuses what is neither a tag nor a digest", async () => {
    await expect(repositoryAt("r.test").headManifest("sha256:..", signal)).rejects.toThrow("not a digest");
    const server = await serve({});
    await expect(repositoryAt(server.host).headManifest("../../x", signal)).rejects.toMatchObject({
      code: "not_found",
    });
    expect(server.lines()[0]).toBe("HEAD /v2/acme/app/manifests/..%2F..%2Fx");
  });
});

describe("resolving", () => {
  const resolve = (server: RawServer): Promise<unknown> => repositoryAt(server.host).resolve(amd64, signal);

  test("follows an index within an index, and no further", async () => {
    const inner = makeIndex({ "linux/amd64": image });
    const wrap = (bytes: Uint8Array, platform?: object): Uint8Array =>
      json({
        schemaVersion: 2,
        mediaType: mediaTypes.ociIndex,
        manifests: [
          { mediaType: mediaTypes.ociIndex, digest: digestOf(bytes), size: bytes.length, platform },
        ],
      });
    const middle = wrap(inner);
    const outer = wrap(middle, amd64);
    const all = {
      ...blobsOf(image),
      ...byDigest(image.manifestBytes),
      ...byDigest(inner, mediaTypes.ociIndex),
      ...byDigest(middle, mediaTypes.ociIndex),
    };
    const fine = await serve({ ...all, "manifests/1": manifestReply(middle, mediaTypes.ociIndex) });
    expect(await resolve(fine)).toMatchObject({ manifest: image.manifest });
    const deep = await serve({ ...all, "manifests/1": manifestReply(outer, mediaTypes.ociIndex) });
    await expect(resolve(deep)).rejects.toMatchObject({ code: "protocol" });
  });

  test("refuses a manifest that is not what its index, or its header, says", async () => {
    const index = makeIndex({ "linux/amd64": image });
    const other = makeImage({ architecture: "arm64" }).manifestBytes;
    const swapped = await serve({
      "manifests/1": manifestReply(index, mediaTypes.ociIndex),
      [`manifests/${image.manifest.digest}`]: { ...manifestReply(image.manifestBytes), body: other },
    });
    await expect(resolve(swapped)).rejects.toMatchObject({ code: "digest_mismatch" });
    const header = await serve({ "manifests/1": { ...manifestReply(image.manifestBytes), body: other } });
    await expect(resolve(header)).rejects.toMatchObject({ code: "digest_mismatch" });
    const lied = json({
      ...JSON.parse(Buffer.from(index).toString()),
      manifests: [{ ...image.manifest, size: 7, platform: amd64 }],
    });
    const size = await serve({
      ...byDigest(image.manifestBytes),
      "manifests/1": manifestReply(lied, mediaTypes.ociIndex),
    });
    await expect(resolve(size)).rejects.toMatchObject({ code: "digest_mismatch" });
  });

  test("refuses a configuration that is corrupt, or for another machine", async () => {
    const corrupt = await serve({
      "manifests/1": manifestReply(image.manifestBytes),
      [`blobs/${image.config.digest}`]: { status: 200, body: new Uint8Array(image.config.size) },
    });
    await expect(resolve(corrupt)).rejects.toMatchObject({ code: "digest_mismatch" });
    const arm = makeImage({ architecture: "arm64" });
    const foreign = await serve({ ...blobsOf(arm), "manifests/1": manifestReply(arm.manifestBytes) });
    await expect(resolve(foreign)).rejects.toMatchObject({
      code: "no_such_platform",
      message: expect.stringContaining("linux/arm64"),
    });
  });

  test("refuses schema 1 with a hint", async () => {
    const schema1 = json({ schemaVersion: 1, name: "acme/app", fsLayers: [] });
    const server = await serve({ "manifests/1": manifestReply(schema1, mediaTypes.dockerSchema1Signed) });
    await expect(resolve(server)).rejects.toMatchObject({
      code: "unsupported_media_type",
      next: expect.stringContaining("Push"),
    });
  });

  test("refuses a manifest without an end", async () => {
    const server = await serve({
      "manifests/1": manifestReply(new Uint8Array(4 * 1024 * 1024 + 1).fill(32)),
    });
    await expect(resolve(server)).rejects.toMatchObject({ code: "too_large" });
  });

  test("names what is missing, and repeats nothing that the registry said", async () => {
    const server = await serve({});
    const error: unknown = await resolve(server).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "not_found" });
    expect(String(error)).toContain("acme/app:1 does not exist");
    expect(String(error)).toContain("MANIFEST_UNKNOWN");
    expect(Bun.inspect(error)).not.toContain("s3cr3t");
  });
});
