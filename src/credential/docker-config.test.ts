import { describe, expect, test } from "bun:test";
import { credentialsFromDockerConfig } from "./docker-config.ts";
import { CredentialError } from "./error.ts";

const auth = (pair: string): { auth: string } => ({ auth: Buffer.from(pair).toString("base64") });
const read = (registry: string, config: unknown): Record<string, string> =>
  Object.fromEntries(
    Object.entries(credentialsFromDockerConfig(registry, JSON.stringify(config))).map(([key, value]) => [
      key,
      value.expose(),
    ]),
  );

describe("Docker's config", () => {
  test.each([
    ["ghcr.io", "ghcr.io"],
    ["ghcr.io", "https://ghcr.io"],
    ["ghcr.io", "https://ghcr.io/v2/"],
    ["docker.io", "https://index.docker.io/v1/"],
    ["docker.io", "docker.io"],
    ["localhost:5000", "localhost:5000"],
  ])("has %s under %s", (registry, key) => {
    expect(read(registry, { auths: { [key]: auth("alice:a:b") } })).toEqual({
      USERNAME: "alice",
      PASSWORD: "a:b",
    });
  });

  test("gives user name and password, identity and registry tokens", () => {
    expect(read("r.test", { auths: { "r.test": { username: "u", password: "p" } } })).toEqual({
      USERNAME: "u",
      PASSWORD: "p",
    });
    const identity = { ...auth("<token>:x"), identitytoken: "t" };
    expect(read("r.test", { auths: { "r.test": identity } })).toEqual({ REGISTRY_IDENTITY_TOKEN: "t" });
    expect(read("r.test", { auths: { "r.test": { registrytoken: "t" } } })).toEqual({ REGISTRY_TOKEN: "t" });
  });

  test("does not take another registry's entry, nor one of a namespace", () => {
    const auths = { "r.test.evil.com": auth("a:b"), "r.test/ns": auth("a:b"), "r.test:5000": auth("a:b") };
    expect(() => read("r.test", { auths })).toThrow("no credential for r.test");
  });

  test("says what to do about a credential helper", () => {
    const helpers = [{ credsStore: "pass", auths: { "r.test": {} } }, { credHelpers: { "r.test": "pass" } }];
    for (const config of helpers) {
      expect(() => read("r.test", config)).toThrow(
        expect.objectContaining({
          code: "no_credentials",
          next: expect.stringContaining("docker-credential-pass get"),
        }),
      );
    }
  });

  test("an entry of its own wins over the helper", () => {
    expect(read("r.test", { credsStore: "pass", auths: { "r.test": auth("a:b") } })).toEqual({
      USERNAME: "a",
      PASSWORD: "b",
    });
  });

  test.each([
    "",
    "hunter2",
    '{"auths":{"r.test":{"auth":7}}}',
    '{"auths":{"r.test":{"auth":"aHVudGVyMg=="}}}',
  ])("refuses %p without quoting it", (text) => {
    try {
      credentialsFromDockerConfig("r.test", text);
    } catch (error) {
      expect(error).toBeInstanceOf(CredentialError);
      expect(String(error)).not.toContain("hunter2");
      return;
    }
    throw new Error("not refused");
  });
});
