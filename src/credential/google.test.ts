import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { inspect } from "node:util";
import { createProvider } from "./create-provider.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { CredentialProvider } from "./provider.ts";
import { credentialMap } from "./value.ts";

const registry = "europe-docker.pkg.dev";
const { privateKey } = generateKeyPairSync("rsa", {
  modulusLength: 2048,
  publicKeyEncoding: { type: "spki", format: "pem" },
  privateKeyEncoding: { type: "pkcs8", format: "pem" },
});
const account = {
  type: "service_account",
  project_id: "acme",
  private_key_id: "1",
  private_key: privateKey,
  client_email: "ci@acme.iam.gserviceaccount.com",
  token_uri: "https://oauth2.googleapis.com/token",
  universe_domain: "googleapis.com",
};

describe("the Google provider", () => {
  let server: Bun.Server<undefined>;
  let assertions: string[] = [];
  let reply: () => Response;

  beforeAll(() => {
    server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: async (request) => {
        assertions.push(new URLSearchParams(await request.text()).get("assertion") ?? "");
        return reply();
      },
    });
  });
  afterAll(() => server.stop(true));

  const provider = (changes: Record<string, unknown> = {}): CredentialProvider => {
    const key = JSON.stringify({ ...account, ...changes });
    const credentials = credentialMap({ GOOGLE_APPLICATION_CREDENTIALS: key });
    const toLoopback = (url: string, init: RequestInit): Promise<Response> => {
      expect(url).toBe("https://oauth2.googleapis.com/token");
      return fetch(server.url, init);
    };
    return createProvider(
      { registry, type: "gcp", credentials },
      { fetch: toLoopback, issued: new IssuedAuthorizations() },
    );
  };

  test("exchanges a service account's signature for a token, and keeps it", async () => {
    assertions = [];
    reply = () => Response.json({ access_token: "ya29.x", expires_in: 3600, token_type: "Bearer" });
    const made = provider();
    for (let round = 0; round < 2; round += 1) {
      const authorization = await made.authorization();
      if (authorization.kind !== "basic") throw new Error(authorization.kind);
      expect([authorization.username, authorization.password.expose()]).toEqual([
        "oauth2accesstoken",
        "ya29.x",
      ]);
      expect(authorization.expiresAt?.getTime()).toBeGreaterThan(Date.now() + 3500_000);
    }
    expect(assertions).toHaveLength(1);
    const claims = JSON.parse(Buffer.from(assertions[0]?.split(".")[1] ?? "", "base64url").toString());
    expect(claims).toMatchObject({ iss: account.client_email, aud: "https://oauth2.googleapis.com/token" });
  });

  test("names the account that Google refuses, and neither key nor assertion", async () => {
    reply = () =>
      Response.json({ error: "invalid_grant", error_description: "Invalid JWT Signature." }, { status: 400 });
    const error: unknown = await provider()
      .authorization()
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "provider_failed",
      message: expect.stringContaining(account.client_email),
    });
    const shown = inspect(error, { depth: 9 });
    expect(shown).not.toContain("PRIVATE KEY");
    expect(shown).not.toContain(assertions.at(-1) ?? "-");
  });

  test.each([
    { type: "external_account", credential_source: { file: "/etc/passwd" } },
    { type: "authorized_user" },
    { universe_domain: "evil.com" },
    { token_uri: "https://evil.com/token" },
    { token_uri: "http://oauth2.googleapis.com/token" },
    { token_uri: "https://googleapis.com.evil.com/token" },
    { token_uri: "https://oauth2.googleapis.com:444/token" },
    { private_key: undefined },
    { client_email: undefined },
  ])("refuses a key file with %p", (changes) => {
    expect(() => provider(changes)).toThrow(expect.objectContaining({ code: "bad_value" }));
  });
});
