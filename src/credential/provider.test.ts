import { describe, expect, test } from "bun:test";
import { Redacted } from "../std/redacted.ts";
import { createProvider, createProviderFromEnv } from "./create-provider.ts";
import { detectCredentialType } from "./detect.ts";
import { CredentialError } from "./error.ts";
import { type CredentialProvider, provedAnew } from "./provider.ts";
import { credentialMap } from "./value.ts";

function provider(registry: string, values: Record<string, string>): CredentialProvider {
  const credentials = credentialMap(values);
  return createProvider({ registry, type: detectCredentialType(registry, credentials), credentials });
}

describe("a proof of a credential", () => {
  /** Of a service that has made a token already, and may have withdrawn the keys since. */
  const issued = (state: { withdrawn: boolean; made: number }): CredentialProvider => ({
    registry: "r.test",
    type: "aws",
    fingerprint: "f",
    renewable: true,
    authorization: async (_, options) => {
      if (options?.refresh === true) {
        if (state.withdrawn) throw new CredentialError("provider_failed", "AWS does not know the AWS keys");
        state.made += 1;
      }
      return { kind: "basic", username: "AWS", password: new Redacted(String(state.made)) };
    },
  });

  test("asks the issuer once, whatever that made before", async () => {
    const state = { withdrawn: false, made: 1 };
    const proved = provedAnew(issued(state));
    await Promise.all([proved.authorization(), proved.authorization()]);
    await proved.authorization();
    expect(state.made).toBe(2);
  });

  test("fails with keys that were withdrawn, also where a token of theirs lives on", async () => {
    const proved = provedAnew(issued({ withdrawn: true, made: 1 }));
    for (const _ of [1, 2])
      await expect(proved.authorization()).rejects.toMatchObject({ code: "provider_failed" });
  });

  test("has nobody to ask for a password", async () => {
    const password = provider("r.test", { USERNAME: "u", PASSWORD: "p" });
    const proved = provedAnew(password);
    expect(await proved.authorization()).toEqual(await password.authorization());
    expect(proved.fingerprint).not.toBe(password.fingerprint);
  });
});

describe("providers", () => {
  test.each([
    ["docker.io", { DOCKERHUB_USERNAME: "u", DOCKERHUB_TOKEN: "p" }, "u", "p"],
    ["docker.io", { DOCKERHUB_USERNAME: "u", DOCKERHUB_PASSWORD: "p" }, "u", "p"],
    ["ghcr.io", { GITHUB_USERNAME: "u", GITHUB_TOKEN: "p" }, "u", "p"],
    ["nvcr.io", { NGC_API_KEY: "k" }, "$oauthtoken", "k"],
    ["gcr.io", { GCP_ACCESS_TOKEN: "t" }, "oauth2accesstoken", "t"],
    ["acme.azurecr.io", { AZURE_CLIENT_ID: "id", AZURE_CLIENT_SECRET: "s" }, "id", "s"],
    ["r.test", { USERNAME: "u", PASSWORD: "p:q" }, "u", "p:q"],
  ] as [string, Record<string, string>, string, string][])(
    "for %s and %p",
    async (registry, values, username, password) => {
      const authorization = await provider(registry, values).authorization();
      if (authorization.kind !== "basic") throw new Error(authorization.kind);
      expect([authorization.username, authorization.password.expose()]).toEqual([username, password]);
    },
  );

  test("hand tokens over as they are", async () => {
    const bearer = await provider("r.test", { REGISTRY_TOKEN: "t" }).authorization();
    const refresh = await provider("r.test", { REGISTRY_IDENTITY_TOKEN: "t" }).authorization();
    expect([bearer.kind, refresh.kind]).toEqual(["bearer", "refresh"]);
  });

  test("from an environment with the variables set", async () => {
    const env = { USERNAME: "u", PASSWORD: "p", HOME: "/root" };
    const made = createProviderFromEnv("registry.test:5000/app:1", ["USERNAME", "PASSWORD"], env);
    expect(made).toMatchObject({ registry: "registry.test:5000", type: "basic" });
    expect((await made.authorization()).kind).toBe("basic");
  });

  test("from an environment without any keys asked for is the public one", async () => {
    const made = createProviderFromEnv("debian:12", [], { USERNAME: "u", PASSWORD: "p" });
    expect(made).toMatchObject({ registry: "docker.io", type: "public" });
    expect(await made.authorization()).toEqual({ kind: "anonymous" });
  });

  test("from an environment that lacks a variable is an error that names it", () => {
    const call = (): unknown =>
      createProviderFromEnv("r.test/app", ["USERNAME", "PASSWORD"], { USERNAME: "u" });
    expect(call).toThrow(
      expect.objectContaining({ code: "missing_key", message: expect.stringContaining("PASSWORD") }),
    );
  });

  test("refuse a user name with a colon and a token with blanks", () => {
    expect(() => provider("r.test", { USERNAME: "a:b", PASSWORD: "p" })).toThrow(CredentialError);
    expect(() => provider("r.test", { REGISTRY_TOKEN: "Bearer x" })).toThrow("no token has");
  });

  test("refuse a type that the keys are not", () => {
    const credentials = credentialMap({ USERNAME: "u", PASSWORD: "p" });
    expect(() => createProvider({ registry: "r.test", type: "aws", credentials })).toThrow(
      "its keys are basic",
    );
  });

  test("have one fingerprint for equal credentials and another for different ones", () => {
    const one = provider("r.test", { USERNAME: "u", PASSWORD: "p" });
    expect(provider("r.test", { PASSWORD: "p", USERNAME: "u" }).fingerprint).toBe(one.fingerprint);
    const others = [
      provider("r.test", { USERNAME: "u", PASSWORD: "q" }),
      provider("s.test", { USERNAME: "u", PASSWORD: "p" }),
      provider("r.test", { USERNAME: "up", PASSWORD: "" + "x" }),
    ];
    expect(new Set([one, ...others].map((each) => each.fingerprint)).size).toBe(4);
    expect(one.fingerprint).not.toContain("p".repeat(2));
  });

  test("show nothing of the credential when printed", () => {
    const made = provider("r.test", { USERNAME: "u", PASSWORD: "hunter2" });
    expect(Bun.inspect(made) + JSON.stringify(made)).not.toContain("hunter2");
  });
});
