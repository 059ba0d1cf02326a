import { describe, expect, test } from "bun:test";
import { parsePlatform } from "../reference/platform.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage } from "./image.test-kit.ts";
import { type IndexEntry, listPlatforms, parseManifest, pickPlatform } from "./manifest.ts";

const where = { registry: "r.test", repository: "a" };
const image = makeImage();
const document = JSON.parse(Buffer.from(image.manifestBytes).toString()) as Record<string, unknown>;
const parse = (value: unknown, type: string = mediaTypes.ociManifest): unknown =>
  parseManifest(
    new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value)),
    type,
    "r.test/a:1",
    where,
  );
const layer = (changes: object): object => ({ ...document, layers: [{ ...image.layers[0], ...changes }] });

describe("a manifest", () => {
  test("of an image is its config and its layers, by its own type or the answer's", () => {
    expect(parse(document)).toMatchObject({ kind: "image", config: image.config, layers: image.layers });
    const { mediaType: _, ...bare } = document;
    expect(parse(bare, mediaTypes.dockerManifest)).toMatchObject({
      kind: "image",
      mediaType: mediaTypes.dockerManifest,
    });
  });

  test.each([
    ["schema 1", { schemaVersion: 1, fsLayers: [] }, "unsupported_media_type"],
    ["schema 1 by type", { mediaType: mediaTypes.dockerSchema1Signed }, "unsupported_media_type"],
    ["a foreign layer", layer({ urls: ["https://evil.com/layer"] }), "unsupported_media_type"],
    [
      "an encrypted layer",
      layer({ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" }),
      "unsupported_media_type",
    ],
    ["a layer of a type that objects have", layer({ mediaType: "constructor" }), "unsupported_media_type"],
    [
      "an artifact",
      { ...document, config: { ...image.config, mediaType: "application/vnd.cncf.helm.config.v1+json" } },
      "unsupported_media_type",
    ],
    ["an unknown type", { mediaType: "text/html" }, "unsupported_media_type"],
    ["index and image at once", { ...document, manifests: [] }, "protocol"],
    ["a digest that is none", layer({ digest: "sha256:../../etc" }), "protocol"],
    ["a negative size", layer({ size: -1 }), "protocol"],
    ["a fractional size", layer({ size: 1.5 }), "protocol"],
    ["no layers", { ...document, layers: undefined }, "protocol"],
    ["a list", [], "protocol"],
    ["no JSON", "<html>", "protocol"],
  ])("with %s is refused", (_, value, code) => {
    expect(() => parse(value)).toThrow(expect.objectContaining({ code, registry: "r.test" }));
  });

  test("with urls that are empty is not foreign", () => {
    expect(parse(layer({ urls: [] }))).toMatchObject({ kind: "image" });
  });
});

describe("picking a platform", () => {
  const entries = (...names: string[]): IndexEntry[] =>
    names.map((name, index) => ({
      descriptor: { mediaType: "", digest: name, size: index },
      platform: name === "-" ? undefined : parsePlatform(name),
    }));
  test.each([
    [["linux/amd64", "linux/arm64"], "linux/arm64", "linux/arm64"],
    [["linux/arm64/v8"], "linux/arm64", "linux/arm64/v8"],
    [["linux/arm64"], "linux/arm64/v8", "linux/arm64"],
    [["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm", "linux/arm/v7"],
    [["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", "linux/arm/v5"],
    [["linux/arm/v7"], "linux/arm/v6", undefined],
    [["linux/amd64/v3", "linux/amd64"], "linux/amd64", "linux/amd64"],
    [["linux/amd64", "linux/amd64/v3"], "linux/amd64/v3", "linux/amd64/v3"],
    [["linux/amd64", "linux/amd64/v4"], "linux/amd64/v3", "linux/amd64"],
    [["linux/amd64/v3"], "linux/amd64", undefined],
    [["linux/amd64", "linux/amd64/v3"], "linux/amd64/v4000000000", "linux/amd64"],
    [["linux/arm/v7"], "linux/arm/v99999999999999999999", undefined],
    [["windows/amd64", "unknown/unknown", "-"], "linux/amd64", undefined],
  ])("%p for %s", (names, wanted, expected) => {
    expect(pickPlatform(entries(...names), parsePlatform(wanted))?.digest).toBe(expected);
  });

  test("lists what there is, once each", () => {
    expect(listPlatforms(entries("linux/amd64", "linux/amd64", "unknown/unknown", "linux/arm/v7"))).toBe(
      "linux/amd64, linux/arm/v7",
    );
  });
});
