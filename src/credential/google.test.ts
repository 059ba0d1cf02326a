import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { Redacted } from "../std/redacted.ts";
import { Signer } from "./cloud.test-kit.ts";
import { createProvider } from "./create-provider.ts";
import type { CredentialError } from "./error.ts";
import { FakeGoogle, keyAccount, poolProvider, projectPool, pullAccount } from "./google.test-kit.ts";
import { hostileAnswers } from "./hostile-answer.test-kit.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { WorkspaceIdentity } from "./issuer.ts";
import type { CredentialProvider } from "./provider.ts";
import { credentialMap } from "./value.ts";

const registry = "europe-docker.pkg.dev";
const minute = 60_000;
const otherKey = new Signer();

let google: FakeGoogle;
let issued: IssuedAuthorizations;
beforeEach(() => {
  google = new FakeGoogle();
  issued = new IssuedAuthorizations(google.now);
});
afterEach(() => google.cloud[Symbol.asyncDispose]());

function provider(values: Record<string, string>, workspace?: WorkspaceIdentity): CredentialProvider {
  const dependencies = {
    fetch: google.cloud.fetch,
    now: google.now,
    issued,
    ...(workspace && { workspace }),
  };
  return createProvider({ registry, type: "gcp", credentials: credentialMap(values) }, dependencies);
}

function workspace(name: string, claims: Record<string, unknown> = {}): WorkspaceIdentity {
  return {
    name,
    externalId: `oci-node:${name}`,
    token: async (audience) =>
      new Redacted(google.subjectToken(audience, { sub: `workspace:${name}`, ...claims })),
    identity: () => {
      throw new Error("nobody asks for one");
    },
  };
}

const withKey = (changes: Record<string, unknown> = {}): Record<string, string> => ({
  GOOGLE_APPLICATION_CREDENTIALS: google.keyFile(changes),
});

/** Who Google says that an authorization is. */
async function accountOf(from: CredentialProvider, refresh = false): Promise<string | undefined> {
  const authorization = await from.authorization(undefined, { refresh });
  if (authorization.kind !== "basic") throw new Error(authorization.kind);
  expect(authorization.username).toBe("oauth2accesstoken");
  expect(authorization.expiresAt?.getTime()).toBeGreaterThan(google.nowMs);
  return google.tokens.get(authorization.password.expose());
}

async function failureOf(from: CredentialProvider): Promise<CredentialError> {
  const error: unknown = await from.authorization().catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ name: "CredentialError" });
  const shown = inspect(error, { depth: 9 });
  for (const planted of ["planted", "PRIVATE KEY", "eyJ", "ya29", "?"]) expect(shown).not.toContain(planted);
  return error as CredentialError;
}

describe("a service account's key", () => {
  test("becomes a token by a signature that Google verifies, and the token is kept", async () => {
    const made = provider(withKey());
    expect([await accountOf(made), await accountOf(made)]).toEqual([keyAccount, keyAccount]);
    expect(google.cloud.asked).toEqual(["POST oauth2.googleapis.com/token"]);
  });

  test("becomes another token at half of its life, and when the registry refuses the one", async () => {
    const made = provider(withKey());
    await accountOf(made);
    google.nowMs += 30 * minute - 1;
    await accountOf(made);
    expect(google.cloud.asked).toHaveLength(1);
    google.nowMs += 1;
    await accountOf(made);
    await accountOf(made, true);
    expect(google.cloud.asked).toHaveLength(3);
  });

  test("keeps its token while Google is away, until its end", async () => {
    const made = provider(withKey());
    await accountOf(made);
    google.cloud.override = () => new Response("", { status: 503 });
    google.nowMs += 59 * minute;
    expect(await accountOf(made)).toBe(keyAccount);
    google.nowMs += minute;
    expect(await failureOf(made)).toMatchObject({ code: "provider_unreachable" });
  });

  test.each<[string, Record<string, unknown>, string, string]>([
    ["deleted key", { private_key: otherKey.pem }, "does not know this key", "new key"],
    ["deleted account", { client_email: "x@y.iam.gserviceaccount.com" }, "does not exist", "deleted"],
    ["disabled account", {}, "is disabled", "Enable"],
  ])("tells a %s apart", async (what, changes, message, next) => {
    if (what === "disabled account") google.disabled.add(keyAccount);
    const error = await failureOf(provider(withKey(changes)));
    expect(error.code).toBe("provider_failed");
    expect(error.message).toContain(message);
    expect(error.next).toContain(next);
    expect(error.message).toContain("gserviceaccount.com");
  });

  test("tells a wrong clock apart", async () => {
    const now = (): number => google.nowMs + 20 * minute;
    const credentials = credentialMap(withKey());
    const made = createProvider(
      { registry, type: "gcp", credentials },
      { fetch: google.cloud.fetch, now, issued },
    );
    const error = await failureOf(made);
    expect(error.message).toContain("the time at which");
    expect(error.next).toContain("clock");
  });

  test("names this machine's way when nothing answers", async () => {
    const fetch = () =>
      Promise.reject(Object.assign(new Error("https://planted?x"), { code: "ECONNREFUSED" }));
    const credentials = credentialMap(withKey());
    const made = createProvider({ registry, type: "gcp", credentials }, { fetch, issued });
    const error = await failureOf(made);
    expect(error).toMatchObject({ code: "provider_unreachable" });
    expect(error.message).toBe("Google (oauth2.googleapis.com) cannot be reached: ECONNREFUSED");
  });

  test.each([
    { type: "external_account", credential_source: { file: "/etc/passwd" } },
    { type: "external_account", credential_source: { url: "http://169.254.169.254/" } },
    { type: "external_account", credential_source: { executable: { command: "/bin/id" } } },
    { type: "authorized_user" },
    { type: "impersonated_service_account" },
    { universe_domain: "evil.com" },
    { token_uri: "https://evil.com/token" },
    { token_uri: "http://oauth2.googleapis.com/token" },
    { token_uri: "https://googleapis.com.evil.com/token" },
    { token_uri: "https://oauth2.googleapis.com:444/token" },
    { private_key: undefined },
    { private_key: `-----BEGIN PRIVATE KEY-----\n${"planted".repeat(20)}\n-----END PRIVATE KEY-----` },
    { client_email: undefined },
    { client_email: "two words@acme" },
  ])("is refused with %p", (changes) => {
    const make = (): CredentialProvider => provider(withKey(changes));
    expect(make).toThrow(expect.objectContaining({ code: "bad_value" }));
    if ("type" in changes)
      expect(make).toThrow(expect.objectContaining({ next: expect.stringMatching(/WORKLOAD/) }));
  });

  test("is asked for at Google's one place, whatever the file names", async () => {
    const made = provider(withKey({ token_uri: "https://www.googleapis.com/oauth2/v4/token" }));
    expect(await accountOf(made)).toBe(keyAccount);
    expect(google.cloud.refusedHosts).toEqual([]);
  });

  test("is an RSA key", () => {
    const pem =
      "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----";
    expect(() => provider(withKey({ private_key: pem }))).toThrow("not an RSA key");
  });
});

describe("a service account that another one acts for", () => {
  const values = (): Record<string, string> => ({ ...withKey(), GCP_SERVICE_ACCOUNT: pullAccount });

  test("gives its tokens to whom it was granted", async () => {
    google.grants.add(`${keyAccount} ${pullAccount}`);
    expect(await accountOf(provider(values()))).toBe(pullAccount);
  });

  test("names the role that is missing, of whom and on what", async () => {
    const error = await failureOf(provider(values()));
    expect(error).toMatchObject({ code: "provider_failed" });
    expect(error.next).toBe(`Grant roles/iam.serviceAccountTokenCreator on ${pullAccount} to ${keyAccount}.`);
  });

  test("tells a disabled account and a disabled API apart", async () => {
    google.grants.add(`${keyAccount} ${pullAccount}`);
    google.disabled.add(pullAccount);
    expect((await failureOf(provider(values()))).next).toContain("enabled");
    google.nowMs += 2_000;
    google.apiEnabled = false;
    expect((await failureOf(provider(values()))).next).toContain("iamcredentials.googleapis.com");
  });

  test.each([
    "me@gmail.com",
    "a/../b@x.iam.gserviceaccount.com",
    "x@iam.gserviceaccount.com.evil.com",
    "x:y@gserviceaccount.com",
    "../keys",
  ])("is not %p", (email) => {
    const make = (): CredentialProvider => provider({ ...withKey(), GCP_SERVICE_ACCOUNT: email });
    expect(make).toThrow(expect.objectContaining({ code: "bad_value" }));
  });
});

describe("workload identity federation", () => {
  const values = { GCP_WORKLOAD_IDENTITY_PROVIDER: poolProvider };
  const subject = (name: string): string =>
    `principal://iam.googleapis.com/${projectPool}/subject/workspace:${name}`;

  test.each([
    poolProvider,
    `//iam.googleapis.com/${poolProvider}`,
    `https://iam.googleapis.com/${poolProvider}`,
  ])("exchanges the workspace's own token at %s", async (name) => {
    const made = provider({ GCP_WORKLOAD_IDENTITY_PROVIDER: name }, workspace("blue"));
    expect(await accountOf(made)).toBe(subject("blue"));
    expect(google.cloud.asked).toEqual(["POST sts.googleapis.com/v1/token"]);
  });

  test("goes on to the service account that is named", async () => {
    google.grants.add(`${subject("blue")} ${pullAccount}`);
    const made = provider({ ...values, GCP_SERVICE_ACCOUNT: pullAccount }, workspace("blue"));
    expect(await accountOf(made)).toBe(pullAccount);
  });

  test("names the role that lets the workspace act for a service account", async () => {
    const error = await failureOf(
      provider({ ...values, GCP_SERVICE_ACCOUNT: pullAccount }, workspace("blue")),
    );
    expect(error.next).toBe(`Grant roles/iam.workloadIdentityUser on ${pullAccount} to ${subject("blue")}.`);
  });

  test("gives each workspace tokens of its own for the same words", async () => {
    const [blue, red] = [provider(values, workspace("blue")), provider(values, workspace("red"))];
    expect(blue.fingerprint).not.toBe(red.fingerprint);
    expect(await accountOf(blue)).toBe(subject("blue"));
    expect(await accountOf(red)).toBe(subject("red"));
  });

  test.each<[string, Record<string, unknown>, Partial<FakeGoogle["believed"]>, string]>([
    ["another issuer", { iss: "https://evil.test" }, {}, "issuer https://evil.test"],
    ["another audience", {}, { audience: "x" }, "audience https://iam.googleapis.com/projects/"],
    ["a token that ended", { exp: 1 }, {}, "subject workspace:blue"],
    ["a subject that its condition refuses", {}, { subject: "workspace:red" }, "attribute condition"],
  ])("tells what was sent when Google sees %s", async (_, claims, believed, words) => {
    Object.assign(google.believed, believed);
    const error = await failureOf(provider(values, workspace("blue", claims)));
    expect(error.code).toBe("provider_failed");
    expect(error.message).toContain(words);
    expect(error.message).toContain(poolProvider);
  });

  test("tells a pool that is not there apart", async () => {
    const name = poolProvider.replace("/nodes/", "/elsewhere/");
    const error = await failureOf(provider({ GCP_WORKLOAD_IDENTITY_PROVIDER: name }, workspace("blue")));
    expect(error.message).toContain(`Google has no ${name}`);
  });

  test("says what is missing without an issuer, and without a node", async () => {
    const { token: _, ...without } = workspace("blue");
    expect((await failureOf(provider(values, without))).next).toContain("[identity] issuer");
    google.nowMs += 2_000;
    expect((await failureOf(provider(values))).message).toContain("without a node");
    expect(google.cloud.asked).toEqual([]);
  });

  test.each([
    poolProvider.replace("123456", "acme"),
    poolProvider.replace("global", "eu"),
    `${poolProvider}/x`,
    `${poolProvider}\n`,
    ` ${poolProvider}`,
    `//evil.test/${poolProvider}`,
    `http://iam.googleapis.com/${poolProvider}`,
    `https://iam.googleapis.com.evil.test/${poolProvider}`,
    poolProvider.replace("oci-node", "../x"),
    '{"type":"external_account","credential_source":{"file":"/etc/passwd"}}',
  ])("refuses the name %p", (name) => {
    const make = (): CredentialProvider =>
      provider({ GCP_WORKLOAD_IDENTITY_PROVIDER: name }, workspace("blue"));
    expect(make).toThrow(expect.objectContaining({ code: "bad_value" }));
  });
});

describe("hostile answers", () => {
  test.each(hostileAnswers)("%s: each way to Google ends in an error of ours", async (_, answer, code) => {
    for (const values of [withKey(), { GCP_WORKLOAD_IDENTITY_PROVIDER: poolProvider }]) {
      google.cloud.override = answer;
      expect((await failureOf(provider(values, workspace("blue")))).code).toBe(code as never);
    }
    google.grants.add(`${keyAccount} ${pullAccount}`);
    google.cloud.override = undefined;
    const made = provider({ ...withKey(), GCP_SERVICE_ACCOUNT: pullAccount });
    google.cloud.overrideOf = ["iamcredentials.googleapis.com", answer];
    expect((await failureOf(made)).code).toBe(code as never);
    expect(google.cloud.refusedHosts).toEqual([]);
  });
});

test("an access token is passed on to a service account that is named, as long as it lives", async () => {
  const theirs = await provider(withKey()).authorization();
  const token = theirs.kind === "basic" ? theirs.password.expose() : "";
  const values = { GCP_ACCESS_TOKEN: token, GCP_SERVICE_ACCOUNT: pullAccount };
  expect((await failureOf(provider(values))).next).toContain("to the account of GCP_ACCESS_TOKEN");
  google.grants.add(`${keyAccount} ${pullAccount}`);
  google.nowMs += 2_000;
  expect(await accountOf(provider(values))).toBe(pullAccount);
  google.nowMs += 61 * minute;
  expect((await failureOf(provider(values))).next).toContain("may have expired");
});

test("an access token is passed on as it is, and one that is none is refused", async () => {
  const made = provider({ GCP_ACCESS_TOKEN: "ya29.mine" });
  expect(made.renewable).toBe(false);
  const authorization = await made.authorization();
  expect(authorization).toMatchObject({ kind: "basic", username: "oauth2accesstoken" });
  expect(() => provider({ GCP_ACCESS_TOKEN: "Bearer ya29" })).toThrow("no token has");
});
