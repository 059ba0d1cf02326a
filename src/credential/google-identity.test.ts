import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { FakeGoogle, machineAccount, pullAccount } from "./google.test-kit.ts";
import { type GoogleIdentitySettings, googleIdentity } from "./google-identity.ts";
import { hostileAnswers } from "./hostile-answer.test-kit.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { Identity } from "./issuer.ts";
import type { CredentialProvider } from "./provider.ts";

let google: FakeGoogle;
beforeEach(() => {
  google = new FakeGoogle();
});
afterEach(() => google.cloud[Symbol.asyncDispose]());

/** Issuers and the metadata server are reached by ways of their own, each of which refuses the other's hosts. */
function identity(settings: GoogleIdentitySettings = { source: "metadata" }): Identity {
  const only = (protocol: string) => (url: string, init: RequestInit) => {
    expect(new URL(url).protocol).toBe(protocol);
    return google.cloud.fetch(url, init);
  };
  const issued = new IssuedAuthorizations(google.now);
  return googleIdentity("prod", settings, {
    fetch: only("https:"),
    metadataFetch: only("http:"),
    issued,
    now: google.now,
  });
}

async function accountOf(from: CredentialProvider): Promise<string | undefined> {
  const authorization = await from.authorization();
  return authorization.kind === "basic"
    ? google.tokens.get(authorization.password.expose())
    : authorization.kind;
}

describe("the machine's identity at Google", () => {
  test("is its default service account, whose tokens the metadata server gives", async () => {
    const made = identity().provider("gcr.io");
    expect(made).toMatchObject({ registry: "gcr.io", type: "identity", renewable: true });
    expect([await accountOf(made), await accountOf(made)]).toEqual([machineAccount, machineAccount]);
    expect(google.cloud.asked).toEqual([
      "GET metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token",
    ]);
  });

  test("is asked for anew only when the metadata server has another token", async () => {
    const made = identity().provider("gcr.io");
    await made.authorization();
    google.nowMs += 56 * 60_000 - 1;
    await made.authorization();
    expect(google.cloud.asked).toHaveLength(1);
    google.nowMs += 1;
    await made.authorization();
    expect(google.cloud.asked).toHaveLength(2);
  });

  test("goes on to a service account that the operator names", async () => {
    google.grants.add(`${machineAccount} ${pullAccount}`);
    const made = identity({ source: "metadata", serviceAccount: pullAccount });
    expect(await accountOf(made.provider("europe-docker.pkg.dev"))).toBe(pullAccount);
    expect(() => identity({ source: "metadata", serviceAccount: "me@gmail.com" })).toThrow(
      "service_account is not",
    );
  });

  test("is for Google's registries only", () => {
    for (const registry of ["ghcr.io", "pkg.dev.evil.com", "evil-gcr.io", "gcr.io:5000"]) {
      expect(() => identity().provider(registry)).toThrow(
        expect.objectContaining({ code: "registry_mismatch" }),
      );
    }
  });

  test("tells a machine without a service account, and a metadata server that is none", async () => {
    google.machineHasAccount = false;
    await expect(identity().provider("gcr.io").authorization()).rejects.toThrow("no service account");
    google.cloud.override = () => Response.json({ access_token: "planted", expires_in: 3600 });
    await expect(identity().provider("gcr.io").authorization()).rejects.toThrow("is something else");
  });

  test("says that the metadata server is not there", async () => {
    const away = () => Promise.reject(Object.assign(new Error("no"), { code: "ENOTFOUND" }));
    const made = googleIdentity("prod", { source: "metadata" }, { fetch: away, metadataFetch: away });
    await expect(made.provider("gcr.io").authorization()).rejects.toMatchObject({
      code: "provider_unreachable",
      message: "Google's metadata server (metadata.google.internal) cannot be reached: ENOTFOUND",
    });
  });

  test.each(hostileAnswers)("is not had from %s", async (_, answer, code) => {
    google.cloud.override = () => {
      const response = answer();
      response.headers.set("Metadata-Flavor", "Google");
      return response;
    };
    await expect(identity().provider("gcr.io").authorization()).rejects.toMatchObject({ code });
  });
});
