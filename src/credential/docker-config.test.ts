import { describe, expect, test } from "bun:test";
import { type CredentialTarget, findInDockerConfig, parseDockerConfig } from "./docker-config.ts";
import { CredentialError } from "./error.ts";
import type { CredentialMap } from "./provider.ts";

const auth = (pair: string): { auth: string } => ({ auth: Buffer.from(pair).toString("base64") });
const plain = (map: CredentialMap | undefined): Record<string, string> | undefined =>
  map && Object.fromEntries(Object.entries(map).map(([key, value]) => [key, value.expose()]));

async function find(target: CredentialTarget, config: unknown, namespaces = false) {
  const parsed = parseDockerConfig(JSON.stringify(config), "Docker's config");
  return plain(await findInDockerConfig(target, parsed, { owner: "Docker's config", namespaces }));
}
const read = (registry: string, config: unknown) => find({ registry }, config);

describe("Docker's config", () => {
  test.each([
    ["ghcr.io", "ghcr.io"],
    ["ghcr.io", "https://ghcr.io"],
    ["ghcr.io", "https://ghcr.io/v2/"],
    ["docker.io", "https://index.docker.io/v1/"],
    ["docker.io", "docker.io"],
    ["docker.io", "registry-1.docker.io"],
    ["localhost:5000", "localhost:5000"],
  ])("has %s under %s", async (registry, key) => {
    expect(await read(registry, { auths: { [key]: auth("alice:a:b") } })).toEqual({
      USERNAME: "alice",
      PASSWORD: "a:b",
    });
  });

  test("gives user name and password, identity and registry tokens", async () => {
    expect(await read("r.test", { auths: { "r.test": { username: "u", password: "p" } } })).toEqual({
      USERNAME: "u",
      PASSWORD: "p",
    });
    const identity = { ...auth("<token>:x"), identitytoken: "t" };
    expect(await read("r.test", { auths: { "r.test": identity } })).toEqual({ REGISTRY_IDENTITY_TOKEN: "t" });
    const token = { auths: { "r.test": { registrytoken: "t" } } };
    expect(await read("r.test", token)).toEqual({ REGISTRY_TOKEN: "t" });
  });

  test("does not take another registry's entry, nor one of a namespace", async () => {
    const auths = {
      "r.test.evil.com": auth("a:b"),
      "evil.com/r.test": auth("a:b"),
      "https://evil.com/r.test/v2/": auth("a:b"),
      "r.test/ns": auth("a:b"),
      "r.test:5000": auth("a:b"),
      "*.test": auth("a:b"),
    };
    expect(await find({ registry: "r.test", repository: "ns/app" }, { auths })).toBeUndefined();
  });

  test("passes over the empty entry that a helper's login leaves behind", async () => {
    const auths = { "https://r.test": {}, "r.test": auth("a:b") };
    expect(await read("r.test", { auths })).toEqual({ USERNAME: "a", PASSWORD: "b" });
  });

  test.each([
    "",
    "hunter2",
    '{"auths":{"r.test":{"auth":7}}}',
    '{"auths":{"r.test":{"auth":"aHVudGVyMg=="}}}',
    `{"auths":{"r.test":{"auth":"${"hunter2".repeat(200_000)}"}}}`,
  ])("refuses what is malformed without quoting it (%#)", async (text) => {
    try {
      const options = { owner: "Docker's config", namespaces: false };
      await findInDockerConfig({ registry: "r.test" }, parseDockerConfig(text, "Docker's config"), options);
    } catch (error) {
      expect(error).toBeInstanceOf(CredentialError);
      expect((error as CredentialError).code).toBe("bad_value");
      expect(String(error)).not.toContain("hunter2");
      return;
    }
    throw new Error("not refused");
  });
});

describe("Podman's auth.json", () => {
  const auths = {
    "r.test": auth("all:1"),
    "r.test/acme": auth("acme:2"),
    "r.test/acme/app": auth("app:3"),
    "docker.io/library": auth("hub:4"),
  };

  test.each([
    ["r.test", "acme/app", "app"],
    ["r.test", "acme/app/sub", "app"],
    ["r.test", "acme/apple", "acme"],
    ["r.test", "acme", "acme"],
    ["r.test", "acmeish/app", "all"],
    ["r.test", undefined, "all"],
    ["docker.io", "library/debian", "hub"],
    ["docker.io", "me/app", undefined],
  ])("gives %s/%s the longest key that fits: %s's", async (registry, repository, user) => {
    const target = { registry, ...(repository === undefined ? {} : { repository }) };
    expect((await find(target, { auths }, true))?.["USERNAME"]).toBe(user as string);
  });
});

test("a .dockercfg has its entries without auths around them", async () => {
  const config = parseDockerConfig(JSON.stringify({ "r.test": auth("a:b") }), "it", true);
  const found = await findInDockerConfig({ registry: "r.test" }, config, { owner: "it", namespaces: false });
  expect(plain(found)).toEqual({ USERNAME: "a", PASSWORD: "b" });
});
