import { Agent } from "node:https";
import { gaxios, JWT } from "google-auth-library";
import { z } from "zod";
import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { askIssuer, fetchOf, type IssuerFetch, issuedOf, type ProviderDependencies } from "./issuer.ts";
import { googleKeyFileKey } from "./key.ts";
import type { CredentialProvider, RegistryAuthorization, RegistryCredential } from "./provider.ts";

const keepRule = { lifeMs: 3600_000, marginMs: 5 * 60_000 };
const scope = "https://www.googleapis.com/auth/cloud-platform";
const userName = "oauth2accesstoken";

const serviceAccountSchema = z.object({
  type: z.literal("service_account"),
  client_email: z.string().min(3).max(255),
  private_key: z.string().min(64).max(8192),
  private_key_id: z.string().max(255).optional(),
  token_uri: z.string().max(255).optional(),
  universe_domain: z.string().max(255).optional(),
});

type ServiceAccount = z.infer<typeof serviceAccountSchema>;

/** GCP_ACCESS_TOKEN as it is (about an hour, then it is over), or a service account's key, which makes new tokens. */
export function googleProvider(
  credential: RegistryCredential,
  dependencies: ProviderDependencies,
): CredentialProvider {
  const { registry, credentials } = credential;
  const fingerprint = fingerprintOf(credential);
  const key = credentials[googleKeyFileKey];
  if (key === undefined) {
    const password = credentials["GCP_ACCESS_TOKEN"] ?? new Redacted("");
    const fixed: RegistryAuthorization = { kind: "basic", username: userName, password };
    return { registry, type: "gcp", fingerprint, renewable: false, authorization: async () => fixed };
  }
  const account = parseServiceAccount(key);
  return {
    registry,
    type: "gcp",
    fingerprint,
    renewable: true,
    authorization: (signal, options) =>
      issuedOf(dependencies).get(fingerprint, keepRule, () => issueToken(account, dependencies), {
        signal,
        refresh: options?.refresh,
      }),
  };
}

/**
 * Only the key of a service account of the public cloud: other kinds of Google's JSON make the library read files, run
 * programs or post to URLs that the JSON names, and another universe is another company's server.
 */
function parseServiceAccount(json: Redacted<string>): ServiceAccount {
  const parsed = serviceAccountSchema.safeParse(JSON.parse(json.expose()));
  if (!parsed.success) {
    throw new CredentialError("bad_value", `${googleKeyFileKey} is not the key of a service account`, {
      next: "Use a JSON key of type service_account; other kinds of Google credentials are not accepted here.",
    });
  }
  const account = parsed.data;
  if (account.universe_domain !== undefined && account.universe_domain !== "googleapis.com") {
    throw new CredentialError("bad_value", `${googleKeyFileKey} names a foreign universe_domain`, {
      next: "Only service accounts of googleapis.com are accepted.",
    });
  }
  if (account.token_uri !== undefined && !isGoogleApi(account.token_uri)) {
    throw new CredentialError("bad_value", `${googleKeyFileKey} names a token_uri that is not Google's`, {
      next: "Use the key file as Google issued it.",
    });
  }
  return account;
}

function isGoogleApi(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  const plain = url.protocol === "https:" && url.port === "" && url.username === "" && url.password === "";
  return plain && url.hostname.endsWith(".googleapis.com");
}

async function issueToken(
  account: ServiceAccount,
  dependencies: ProviderDependencies,
): Promise<RegistryAuthorization> {
  const client = new JWT({
    email: account.client_email,
    key: account.private_key,
    scopes: [scope],
    transporter: transporter(fetchOf(dependencies)),
    ...(account.private_key_id === undefined ? {} : { keyId: account.private_key_id }),
  });
  try {
    const answer = await client.authorize();
    if (!answer.access_token) throw new Error("no token");
    const expiresAt = answer.expiry_date ? new Date(answer.expiry_date) : undefined;
    return {
      kind: "basic",
      username: userName,
      password: new Redacted(answer.access_token),
      ...(expiresAt === undefined ? {} : { expiresAt }),
    };
  } catch (error) {
    // Neither message nor cause: the library's errors carry the request, and with it the signed assertion.
    const reason = /^(invalid_grant|invalid_client|unauthorized_client)/.exec((error as Error).message)?.[0];
    throw new CredentialError(
      "provider_failed",
      `Google gives ${account.client_email} no token (${reason ?? "failed"})`,
      {
        next:
          reason === undefined
            ? "Check that this machine reaches oauth2.googleapis.com, then try again."
            : "Check that the service account and its key still exist and that the clock is right; then make a new key.",
      },
    );
  }
}

/** The agent is never used; it keeps the library from looking for proxies in the environment. */
function transporter(send: IssuerFetch): gaxios.Gaxios {
  return new gaxios.Gaxios({
    agent: new Agent(),
    retryConfig: { retry: 2, httpMethodsToRetry: ["POST"] },
    fetchImplementation: async (input: unknown, init?: RequestInit) => {
      const url = String(input instanceof Request ? input.url : input);
      if (!isGoogleApi(url)) throw new Error("refused to ask a host that is not Google's");
      const answer = await askIssuer(send, url, {
        method: init?.method ?? "GET",
        headers: new Headers(init?.headers),
        ...(init?.body ? { body: init.body } : {}),
      });
      return new Response(answer.body, { status: answer.status, headers: answer.headers });
    },
  } as gaxios.GaxiosOptions);
}
