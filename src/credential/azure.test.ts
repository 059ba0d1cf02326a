import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { Redacted } from "../std/redacted.ts";
import { application, domain, FakeAzure, registry, secret, tenant } from "./azure.test-kit.ts";
import { Signer } from "./cloud.test-kit.ts";
import { createProvider } from "./create-provider.ts";
import type { CredentialError } from "./error.ts";
import { hostileAnswers } from "./hostile-answer.test-kit.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { WorkspaceIdentity } from "./issuer.ts";
import type { CredentialProvider } from "./provider.ts";
import { credentialMap } from "./value.ts";

const minute = 60_000;
const keys = { AZURE_CLIENT_ID: application, AZURE_CLIENT_SECRET: secret, AZURE_TENANT_ID: tenant };
const federated = { AZURE_CLIENT_ID: application, AZURE_TENANT_ID: tenant };
const strangerKey = new Signer();

let azure: FakeAzure;
let issued: IssuedAuthorizations;
beforeEach(() => {
  azure = new FakeAzure();
  issued = new IssuedAuthorizations(azure.now);
});
afterEach(() => azure.cloud[Symbol.asyncDispose]());

function provider(
  values: Record<string, string>,
  at = registry,
  workspace?: WorkspaceIdentity,
): CredentialProvider {
  const dependencies = { fetch: azure.cloud.fetch, now: azure.now, issued, ...(workspace && { workspace }) };
  return createProvider({ registry: at, type: "azure", credentials: credentialMap(values) }, dependencies);
}

function workspace(name: string, sign: (audience: string) => string): WorkspaceIdentity {
  return {
    name,
    externalId: `oci-node:${name}`,
    token: async (audience) => new Redacted(sign(audience)),
    identity: () => {
      throw new Error("nobody asks for one");
    },
  };
}

const blue = (claims: Record<string, unknown> = {}): WorkspaceIdentity =>
  workspace("blue", (audience) => azure.assertion(audience, claims));

/** Who the registry says that a refresh token is of. */
async function accountOf(from: CredentialProvider, refresh = false): Promise<string | undefined> {
  const authorization = await from.authorization(undefined, { refresh });
  if (authorization.kind !== "refresh") throw new Error(authorization.kind);
  expect(authorization.expiresAt?.getTime()).toBe(azure.nowMs + azure.refreshLifeSeconds * 1000);
  return azure.tokens.get(authorization.token.expose());
}

async function failureOf(from: CredentialProvider): Promise<CredentialError> {
  const error: unknown = await from.authorization().catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ name: "CredentialError" });
  const shown = inspect(error, { depth: 9 });
  for (const planted of ["planted", "hunter2", "eyJ", "aad0", "?"]) expect(shown).not.toContain(planted);
  return error as CredentialError;
}

describe("an application with a secret", () => {
  test("signs in at Entra, and the very registry gives a refresh token for that", async () => {
    const made = provider(keys);
    expect(made).toMatchObject({ type: "azure", renewable: true });
    expect(await accountOf(made)).toBe(`${application} at ${registry}`);
    expect(azure.cloud.asked).toEqual([
      `POST login.microsoftonline.com/${tenant}/oauth2/v2.0/token`,
      `POST ${registry}/oauth2/exchange`,
    ]);
  });

  test("may name its tenant by a domain", async () => {
    expect(await accountOf(provider({ ...keys, AZURE_TENANT_ID: domain }))).toContain(application);
  });

  test.each([
    ["acme.azurecr.cn", "login.chinacloudapi.cn"],
    ["acme.azurecr.us", "login.microsoftonline.us"],
  ])("signs in for %s at that cloud's own host", async (at, login) => {
    expect(await accountOf(provider(keys, at))).toBe(`${application} at ${at}`);
    expect(azure.cloud.asked[0]).toStartWith(`POST ${login}/`);
  });

  test("keeps its token for half of the life that it names, and asks anew when it is refused", async () => {
    const made = provider(keys);
    const first = await made.authorization();
    azure.nowMs += 90 * minute - 1;
    expect(await made.authorization()).toBe(first);
    azure.nowMs += 1;
    await accountOf(made);
    await accountOf(made, true);
    expect(azure.cloud.asked).toHaveLength(6);
  });

  test("keeps its token while Entra or the registry is away, until it ends", async () => {
    const made = provider(keys);
    const first = await made.authorization();
    azure.cloud.overrideOf = [registry, () => new Response("", { status: 500 })];
    azure.nowMs += 179 * minute;
    expect(await made.authorization()).toBe(first);
    azure.nowMs += minute;
    expect(await failureOf(made)).toMatchObject({ code: "provider_unreachable" });
  });

  test.each<[string, () => unknown, Record<string, string>, string, string, string]>([
    [
      "wrong secret",
      () => 0,
      { AZURE_CLIENT_SECRET: "planted" },
      "provider_failed",
      "refuses the secret",
      "value",
    ],
    [
      "ended secret",
      () => (azure.secretExpired = true),
      {},
      "expired",
      "has expired (AADSTS7000222)",
      "new client",
    ],
    [
      "unknown tenant",
      () => 0,
      { AZURE_TENANT_ID: "other.com" },
      "provider_failed",
      "no tenant other.com",
      "TENANT",
    ],
    [
      "unknown application",
      () => 0,
      { AZURE_CLIENT_ID: tenant },
      "provider_failed",
      "is not in the tenant",
      "CLIENT",
    ],
    ["disabled application", () => (azure.enabled = false), {}, "provider_failed", "is disabled", "Enable"],
    [
      "role that is missing",
      () => azure.admitted.clear(),
      {},
      "provider_failed",
      `${registry} does not know`,
      "AcrPull",
    ],
    [
      "foreign tenant",
      () => (azure.registryTenants = []),
      {},
      "provider_failed",
      "does not know",
      "own tenant",
    ],
    [
      "closed network",
      () => (azure.networkRules = true),
      {},
      "provider_failed",
      "does not let",
      "network rules",
    ],
  ])("tells a %s apart", async (_, prepare, changes, code, message, next) => {
    prepare();
    const error = await failureOf(provider({ ...keys, ...changes }));
    expect(error.code).toBe(code as never);
    expect(error.message).toContain(message);
    expect(error.next).toContain(next);
  });

  test.each([
    { AZURE_TENANT_ID: "common" },
    { AZURE_TENANT_ID: `${tenant}/../x` },
    { AZURE_TENANT_ID: "acme.com?x" },
    { AZURE_TENANT_ID: "acme..com" },
    { AZURE_TENANT_ID: "acme.com@evil.test" },
    { AZURE_TENANT_ID: `${"a".repeat(250)}.com` },
    { AZURE_CLIENT_ID: "app" },
    { AZURE_CLIENT_ID: `${application}0` },
  ])("is refused with %p before anybody is asked", (changes) => {
    const make = (): CredentialProvider => provider({ ...keys, ...changes });
    expect(make).toThrow(expect.objectContaining({ code: "bad_value" }));
  });

  test("without a tenant is a user name and a password", async () => {
    const { AZURE_TENANT_ID: _, ...pair } = keys;
    const made = provider(pair);
    expect(made.renewable).toBe(false);
    expect(await made.authorization()).toMatchObject({ kind: "basic", username: application });
  });
});

describe("an application that a workspace speaks for", () => {
  test("is believed by the workspace's own token", async () => {
    expect(await accountOf(provider(federated, registry, blue()))).toBe(`${application} at ${registry}`);
  });

  test.each<[string, Record<string, unknown>, string]>([
    ["issuer", { iss: "https://evil.test" }, "issuer https://evil.test"],
    ["subject", { sub: "workspace:red" }, "subject workspace:red"],
    ["audience", { aud: "x" }, "audience x"],
    ["time", { exp: 1 }, "too old"],
  ])("tells what was sent when Entra refuses the %s", async (_, claims, words) => {
    const error = await failureOf(provider(federated, registry, blue(claims)));
    expect(error.code).toBe("provider_failed");
    expect(error.message).toContain(words);
  });

  test("is not believed by anybody else's signature", async () => {
    const stranger = workspace("blue", () => strangerKey.jwt({ iss: "i", sub: "s", aud: "a" }));
    const error = await failureOf(provider(federated, registry, stranger));
    expect(error.message).toContain("does not believe");
  });

  test("has tokens of its own for each workspace", async () => {
    const red = workspace("red", (audience) => azure.assertion(audience, { sub: "workspace:red" }));
    expect(await accountOf(provider(federated, registry, blue()))).toContain(application);
    expect((await failureOf(provider(federated, registry, red))).message).toContain("workspace:red");
  });

  test("says what is missing without an issuer, and without a node", async () => {
    const { token: _, ...without } = blue();
    expect((await failureOf(provider(federated, registry, without))).next).toContain("AZURE_CLIENT_SECRET");
    azure.nowMs += 2_000;
    expect((await failureOf(provider(federated))).message).toContain("without a node");
    expect(azure.cloud.asked).toEqual([]);
  });
});

test.each(hostileAnswers)(
  "%s from Entra or the registry ends in an error of ours",
  async (_, answer, code) => {
    azure.cloud.override = answer;
    expect((await failureOf(provider(keys))).code).toBe(code as never);
    azure.cloud.override = undefined;
    azure.cloud.overrideOf = [registry, answer];
    expect((await failureOf(provider({ ...keys, AZURE_TENANT_ID: domain }))).code).toBe(code as never);
    expect(azure.cloud.refusedHosts).toEqual([]);
  },
);

test("a refresh token that names no end is kept by the rule", async () => {
  azure.cloud.overrideOf = [registry, () => Response.json({ refresh_token: "opaque" })];
  const made = provider(keys);
  expect(await made.authorization()).toEqual({ kind: "refresh", token: expect.anything() });
  azure.nowMs += 90 * minute;
  await made.authorization();
  expect(azure.cloud.asked).toHaveLength(4);
});
