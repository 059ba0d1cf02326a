import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { application, FakeAzure, managedId, registry, tenant } from "./azure.test-kit.ts";
import { type AzureIdentitySettings, azureIdentity } from "./azure-identity.ts";
import { hostileAnswers } from "./hostile-answer.test-kit.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { CredentialProvider } from "./provider.ts";

const second = "88888888-2222-3333-4444-555555555555";

let azure: FakeAzure;
let folder: string;
beforeEach(async () => {
  azure = new FakeAzure();
  azure.registryTenants = [null, tenant];
  folder = await mkdtemp(join(tmpdir(), "azure-identity-"));
});
afterEach(async () => {
  await azure.cloud[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Issuers and the metadata service are reached by ways of their own, each of which refuses the other's hosts. */
function provider(settings: AzureIdentitySettings, at = registry): CredentialProvider {
  const only = (protocol: string) => (url: string, init: RequestInit) => {
    expect(new URL(url).protocol).toBe(protocol);
    return azure.cloud.fetch(url, init);
  };
  return azureIdentity("prod", settings, {
    fetch: only("https:"),
    metadataFetch: only("http:"),
    issued: new IssuedAuthorizations(azure.now),
    now: azure.now,
  }).provider(at);
}

async function accountOf(from: CredentialProvider): Promise<string | undefined> {
  const authorization = await from.authorization();
  return authorization.kind === "refresh"
    ? azure.tokens.get(authorization.token.expose())
    : authorization.kind;
}

describe("a managed identity", () => {
  test("gets a token of the metadata service, and the registry's for that", async () => {
    const made = provider({ source: "managed" });
    expect(made).toMatchObject({ registry, type: "identity", renewable: true });
    expect([await accountOf(made), await accountOf(made)]).toEqual(
      Array(2).fill(`${managedId} at ${registry}`),
    );
    expect(azure.cloud.asked).toEqual([
      "GET 169.254.169.254/metadata/identity/oauth2/token",
      `POST ${registry}/oauth2/exchange`,
    ]);
  });

  test("is named where the machine has several", async () => {
    azure.machineIdentities = [second, managedId];
    expect(await accountOf(provider({ source: "managed", clientId: managedId }))).toContain(managedId);
    await expect(provider({ source: "managed" }).authorization()).rejects.toThrow(
      "or several (invalid_request)",
    );
    expect(() => provider({ source: "managed", clientId: "mine" })).toThrow("client_id is not");
  });

  test("is waited for while the metadata service is being updated", async () => {
    azure.updating = 2;
    expect(await accountOf(provider({ source: "managed" }))).toContain(managedId);
  });

  test("that the registry does not know is told by the identity's name", async () => {
    azure.admitted.clear();
    await expect(provider({ source: "managed" }).authorization()).rejects.toMatchObject({
      code: "provider_failed",
      message: `${registry} does not know the identity prod (401)`,
    });
  });

  test("is not there on a machine without a metadata service", async () => {
    const away = () => Promise.reject(Object.assign(new Error("no"), { code: "EHOSTUNREACH" }));
    const made = azureIdentity("prod", { source: "managed" }, { fetch: away, metadataFetch: away });
    await expect(made.provider(registry).authorization()).rejects.toMatchObject({
      code: "provider_unreachable",
      message: "Azure's metadata service (169.254.169.254) cannot be reached: EHOSTUNREACH",
    });
  });

  test("is for Azure's registries only", () => {
    for (const at of ["ghcr.io", "acme.azurecr.io.evil.com", "evilazurecr.io"]) {
      const make = (): CredentialProvider => provider({ source: "managed" }, at);
      expect(make).toThrow(expect.objectContaining({ code: "registry_mismatch" }));
    }
  });

  test.each(hostileAnswers)("is not had from %s", async (_, answer, code) => {
    azure.cloud.overrideOf = ["169.254.169.254", answer];
    await expect(provider({ source: "managed" }).authorization()).rejects.toMatchObject({ code });
  });
});

describe("a workload's identity", () => {
  const settings = (): AzureIdentitySettings => ({
    source: "workload",
    clientId: application,
    tenantId: tenant,
    tokenFile: join(folder, "token"),
  });
  const write = (claims: Record<string, unknown> = {}): Promise<void> =>
    writeFile(join(folder, "token"), `${azure.assertion("api://AzureADTokenExchange", claims)}\n`);

  test("speaks by the token in a file, which is read anew each time", async () => {
    await write();
    const made = provider(settings());
    expect(await accountOf(made)).toBe(`${application} at ${registry}`);
    azure.nowMs += 175 * 60_000;
    await write();
    expect(await accountOf(made)).toBe(`${application} at ${registry}`);
    expect(azure.cloud.asked).toHaveLength(4);
  });

  test("tells a token that nobody wrote anew, and one that is not for the application", async () => {
    await write({ exp: 1 });
    await expect(provider(settings()).authorization()).rejects.toThrow("too old");
    await write({ sub: "system:serviceaccount:x:y" });
    await expect(provider(settings()).authorization()).rejects.toThrow("subject system:serviceaccount:x:y");
  });

  test("tells a file that is not there, is empty or holds something else", async () => {
    await expect(provider(settings()).authorization()).rejects.toThrow("cannot be read");
    for (const text of ["", "two words", "x".repeat(70_000)]) {
      await writeFile(join(folder, "token"), text);
      await expect(provider(settings()).authorization()).rejects.toThrow("holds no token");
    }
  });

  test("needs an application and a tenant", () => {
    expect(() => provider({ source: "workload", tenantId: tenant })).toThrow("lacks client_id");
    expect(() => provider({ ...settings(), tenantId: "common" })).toThrow("is not a tenant");
  });
});
