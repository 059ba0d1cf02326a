import { describe, expect, test } from "bun:test";
import { createProvider } from "./create-provider.ts";
import { detectCredentialType, principalOf } from "./detect.ts";
import { CredentialError } from "./error.ts";
import { canBeSealed, identityCredential } from "./identity.ts";
import type { Identity, WorkspaceIdentity } from "./issuer.ts";
import { marshalCredentials, unmarshalCredentials } from "./marshal.ts";
import { credentialMap } from "./value.ts";

const registry = "registry.acme.test";

function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (error instanceof CredentialError) return error.code;
    throw error;
  }
  return "none";
}

/** A workspace that may use the identities in a set, which can change. */
function workspaceWith(allowed: Set<string>): WorkspaceIdentity {
  const identity: Identity = {
    name: "prod",
    provider: (asked) =>
      createProvider({
        registry: asked,
        type: "token",
        credentials: credentialMap({ REGISTRY_TOKEN: "issued" }),
      }),
  };
  return {
    name: "acme",
    externalId: "oci-node:1",
    identity(name) {
      if (allowed.has(name)) return identity;
      throw new CredentialError("identity_refused", `the workspace acme may not use the identity ${name}`);
    },
  };
}

describe("a credential that names an identity", () => {
  test("is stored as a name, by registry and principal like any other", () => {
    const { credentials } = identityCredential(registry, "prod");
    const text = marshalCredentials(registry, "identity", credentials);
    expect(JSON.parse(text.expose())).toEqual({
      registry,
      type: "identity",
      credentials: { OCI_NODE_IDENTITY: "prod" },
    });
    expect(unmarshalCredentials(text).type).toBe("identity");
    expect(principalOf(registry, "identity", credentials)).toBe("identity:prod");
  });

  test("is one at a cloud's registry too, where a role beside it makes it the cloud's", () => {
    const ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    const named = { OCI_NODE_IDENTITY: "prod" };
    expect(detectCredentialType(ecr, credentialMap(named))).toBe("identity");
    const role = { ...named, AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/pull" };
    expect(detectCredentialType(ecr, credentialMap(role))).toBe("aws");
  });

  test("gives what the identity gives", async () => {
    const dependencies = { workspace: workspaceWith(new Set(["prod"])) };
    const provider = createProvider(identityCredential(registry, "prod"), dependencies);
    expect([provider.type, provider.registry]).toEqual(["identity", registry]);
    expect(provider.advice).toContain("let the identity prod pull it");
    expect(await provider.authorization()).toMatchObject({ kind: "bearer" });
  });

  test("is refused where the workspace may not use it, at each use and not only when it is saved", async () => {
    const allowed = new Set(["prod"]);
    const dependencies = { workspace: workspaceWith(allowed) };
    const provider = createProvider(identityCredential(registry, "prod"), dependencies);
    allowed.delete("prod");
    await expect(provider.authorization()).rejects.toMatchObject({ code: "identity_refused" });
    expect(codeOf(() => createProvider(identityCredential(registry, "prod"), dependencies))).toBe(
      "identity_refused",
    );
  });

  test("is refused where there is no workspace", () => {
    expect(codeOf(() => createProvider(identityCredential(registry, "prod")))).toBe("identity_refused");
  });

  test.each([["Pr0d!hunter2"], ["-x"], ["a/b"], ["x".repeat(64)], ["__proto__"]])(
    "is refused without being quoted when its name is %p",
    (name) => {
      try {
        createProvider(identityCredential(registry, name), { workspace: workspaceWith(new Set([name])) });
      } catch (error) {
        expect((error as CredentialError).code).toBe("bad_value");
        expect(`${error}${(error as CredentialError).next}`).not.toContain(name);
        expect(
          codeOf(() => principalOf(registry, "identity", credentialMap({ OCI_NODE_IDENTITY: name }))),
        ).toBe("bad_value");
        return;
      }
      throw new Error("it was accepted");
    },
  );
});

describe("what a worker can be given as it is", () => {
  const ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
  const pair = { AWS_ACCESS_KEY_ID: "AKIA", AWS_SECRET_ACCESS_KEY: "secret" };
  const role = { AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/pull" };
  test.each([
    [registry, { USERNAME: "u", PASSWORD: "p" }, true],
    [registry, { REGISTRY_TOKEN: "t" }, true],
    [ecr, pair, true],
    ["europe-docker.pkg.dev", { GOOGLE_APPLICATION_CREDENTIALS: "{}" }, true],
    ["acme.azurecr.io", { AZURE_CLIENT_ID: "i", AZURE_CLIENT_SECRET: "s", AZURE_TENANT_ID: "t" }, true],
    // Keys of other registries stand beside it and are not kept.
    [registry, { USERNAME: "u", PASSWORD: "p", ...role, OCI_NODE_IDENTITY: "prod" }, true],
    [registry, { OCI_NODE_IDENTITY: "prod" }, false],
    [ecr, role, false],
    [ecr, { ...pair, ...role }, false],
    [ecr, { ...role, OCI_NODE_IDENTITY: "prod" }, false],
    ["europe-docker.pkg.dev", { GCP_WORKLOAD_IDENTITY_PROVIDER: "projects/1/x" }, false],
    ["acme.azurecr.io", { AZURE_CLIENT_ID: "i", AZURE_TENANT_ID: "t" }, false],
  ] as [string, Record<string, string>, boolean][])("at %s of %p: %p", (host, values, expected) => {
    const credentials = credentialMap(values);
    const type = detectCredentialType(host, credentials);
    expect(canBeSealed({ registry: host, type, credentials })).toBe(expected);
  });
});
