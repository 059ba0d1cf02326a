import { describe, expect, test } from "bun:test";
import {
  registry as acr,
  application,
  FakeAzure,
  managedId,
  secret,
  tenant,
} from "../credential/azure.test-kit.ts";
import { azureIdentity } from "../credential/azure-identity.ts";
import type { FakeCloud } from "../credential/cloud.test-kit.ts";
import { createProvider } from "../credential/create-provider.ts";
import {
  FakeGoogle,
  machineAccount,
  poolProvider,
  projectPool,
  pullAccount,
} from "../credential/google.test-kit.ts";
import { googleIdentity } from "../credential/google-identity.ts";
import { IssuedAuthorizations } from "../credential/issued.ts";
import type { WorkspaceIdentity } from "../credential/issuer.ts";
import type { CredentialProvider } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import { parseReference } from "../reference/reference.ts";
import { Redacted } from "../std/redacted.ts";
import { RegistryClient } from "./client.ts";
import { cloudRegistry } from "./cloud-registry.test-kit.ts";

const gar = "europe-docker.pkg.dev";
const minute = 60_000;
const signal = new AbortController().signal;

/** A cloud with its registry, and a client that reaches both through its one door, under their own names. */
interface Sky {
  readonly cloud: FakeCloud;
  readonly client: RegistryClient;
  readonly issued: IssuedAuthorizations;
  readonly now: () => number;
  pass(timeMs: number): void;
}

function sky(fake: { nowMs: number; readonly cloud: FakeCloud }): Sky {
  const { cloud } = fake;
  const now = (): number => fake.nowMs;
  const pass = (timeMs: number): void => {
    fake.nowMs += timeMs;
  };
  const hosts = [...cloud.hosts.keys()].map(
    (origin) => [new URL(origin).host, { connect: cloud.url }] as const,
  );
  const client = new RegistryClient({
    policy: { insecureHosts: new Set(), privateHosts: new Set(), hosts: new Map(hosts) },
    clock: { now, random: () => 0.5, sleep: async (timeMs) => pass(timeMs) },
  });
  return { cloud, client, issued: new IssuedAuthorizations(now), now, pass };
}

function azureSky(): Sky & { readonly azure: FakeAzure } {
  const azure = new FakeAzure();
  azure.registryTenants = [null, tenant];
  const exchange = azure.cloud.hosts.get(`https://${acr}`);
  const registry = cloudRegistry({
    path: "/oauth2/token",
    service: acr,
    lifeSeconds: 75 * 60,
    saysLife: false,
    now: azure.now,
    login: ({ method, body }) => {
      const form = new URLSearchParams(body);
      const good = method === "POST" && form.get("grant_type") === "refresh_token";
      return good ? azure.whoIs(form.get("refresh_token") ?? "") : undefined;
    },
  });
  azure.cloud.hosts.set(`https://${acr}`, (request) =>
    request.path === "/oauth2/exchange" ? (exchange?.(request) ?? new Response()) : registry(request),
  );
  return { ...sky(azure), azure };
}

function googleSky(): Sky & { readonly google: FakeGoogle } {
  const google = new FakeGoogle();
  google.grants.add(`principal://iam.googleapis.com/${projectPool}/subject/workspace:blue ${pullAccount}`);
  google.grants.add(`${machineAccount} ${pullAccount}`);
  const registry = cloudRegistry({
    path: "/v2/token",
    service: undefined,
    lifeSeconds: 3600,
    saysLife: true,
    now: google.now,
    login: ({ headers }) => {
      const pair = Buffer.from(
        (headers.get("authorization") ?? "").replace(/^Basic /, ""),
        "base64",
      ).toString();
      const [userName, token = ""] = pair.split(":");
      return userName === "oauth2accesstoken" ? google.whoIs(token) : undefined;
    },
  });
  google.cloud.hosts.set(`https://${gar}`, registry);
  return { ...sky(google), google };
}

function blue(sign: (audience: string) => string): WorkspaceIdentity {
  return {
    name: "blue",
    externalId: "oci-node:blue",
    token: async (audience) => new Redacted(sign(audience)),
    identity: () => {
      throw new Error("nobody asks for one");
    },
  };
}

function provided(at: Sky, registry: string, values: Record<string, string>, workspace?: WorkspaceIdentity) {
  const type = registry === acr ? "azure" : "gcp";
  const dependencies = {
    fetch: at.client.issuerFetch,
    issued: at.issued,
    now: at.now,
    ...(workspace && { workspace }),
  };
  return createProvider({ registry, type, credentials: credentialMap(values) }, dependencies);
}

const withIdentity = ({ client, issued, now }: Sky) => ({
  fetch: client.issuerFetch,
  metadataFetch: client.metadataFetch,
  issued,
  now,
});

type Row = readonly [what: string, start: () => readonly [Sky, CredentialProvider], perHour: number];
const rows: readonly Row[] = [
  [
    "Azure's registry by an application's secret",
    () => {
      const at = azureSky();
      const keys = { AZURE_CLIENT_ID: application, AZURE_CLIENT_SECRET: secret, AZURE_TENANT_ID: tenant };
      return [at, provided(at, acr, keys)];
    },
    3,
  ],
  [
    "Azure's registry by federation",
    () => {
      const at = azureSky();
      const workspace = blue((audience) => at.azure.assertion(audience));
      return [at, provided(at, acr, { AZURE_CLIENT_ID: application, AZURE_TENANT_ID: tenant }, workspace)];
    },
    3,
  ],
  [
    "Azure's registry by the machine's identity",
    () => {
      const at = azureSky();
      return [
        at,
        azureIdentity("prod", { source: "managed", clientId: managedId }, withIdentity(at)).provider(acr),
      ];
    },
    3,
  ],
  [
    "Google's registry by a service account's key",
    () => {
      const at = googleSky();
      return [at, provided(at, gar, { GOOGLE_APPLICATION_CREDENTIALS: at.google.keyFile() })];
    },
    4,
  ],
  [
    "Google's registry by federation, as a service account",
    () => {
      const at = googleSky();
      const values = { GCP_WORKLOAD_IDENTITY_PROVIDER: poolProvider, GCP_SERVICE_ACCOUNT: pullAccount };
      return [
        at,
        provided(
          at,
          gar,
          values,
          blue((audience) => at.google.subjectToken(audience, { sub: "workspace:blue" })),
        ),
      ];
    },
    5,
  ],
  [
    "Google's registry by the machine's identity, as a service account",
    () => {
      const at = googleSky();
      const settings = { source: "metadata", serviceAccount: pullAccount } as const;
      return [at, googleIdentity("prod", settings, withIdentity(at)).provider(gar)];
    },
    5,
  ],
];

describe("a day of reads at random times", () => {
  test.each(rows)("from %s: none fails, and tokens are asked for by the hour", async (_, start, perHour) => {
    const [at, provider] = start();
    await using cloud = at.cloud;
    let [seed, reads] = [7, 0];
    const random = (): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    const repository = at.client.repository(parseReference(`${provider.registry}/acme/app:1`), provider);
    const endMs = at.now() + 24 * 60 * minute;
    while (at.now() < endMs) {
      await repository.headManifest("1", signal);
      reads += 1;
      at.pass(Math.floor(random() ** 3 * 40 * minute));
    }
    const forTokens = cloud.asked.filter((asked) => !asked.includes("/manifests/"));
    expect(reads).toBeGreaterThan(100);
    expect(cloud.asked.length - forTokens.length).toBeLessThanOrEqual(reads + 2);
    expect(forTokens.length).toBeGreaterThan(16);
    expect(forTokens.length).toBeLessThanOrEqual(24 * perHour);
  });

  test.each(rows)("from %s: what is handed on is good for this repository only", async (_, start) => {
    const [at, provider] = start();
    await using _cloud = at.cloud;
    const minted = await at.client.mintPull(
      parseReference(`${provider.registry}/acme/app:1`),
      provider,
      signal,
    );
    expect(minted).toMatchObject({ authorization: { kind: "bearer" }, scope: "pull acme/app" });
    if (minted === undefined || minted === "unasked") throw new Error("nothing was minted");
    expect(minted.validUntil.getTime()).toBeGreaterThan(at.now() + 59 * minute);
  });
});

test("a thousand reads with a token that has ended ask once for the next", async () => {
  const at = azureSky();
  await using cloud = at.cloud;
  const keys = { AZURE_CLIENT_ID: application, AZURE_CLIENT_SECRET: secret, AZURE_TENANT_ID: tenant };
  const repository = at.client.repository(parseReference(`${acr}/acme/app:1`), provided(at, acr, keys));
  await repository.headManifest("1", signal);
  at.pass(24 * 60 * minute);
  const from = cloud.asked.length;
  await Promise.all(Array.from({ length: 1000 }, () => repository.headManifest("1", signal)));
  const forTokens = cloud.asked.slice(from).filter((asked) => !asked.includes("/manifests/"));
  expect(forTokens).toEqual([
    `POST login.microsoftonline.com/${tenant}/oauth2/v2.0/token`,
    `POST ${acr}/oauth2/exchange`,
    `POST ${acr}/oauth2/token`,
  ]);
});

test("an access token of Google that is refused is told to have ended, perhaps", async () => {
  const at = googleSky();
  await using _cloud = at.cloud;
  const provider = provided(at, gar, { GCP_ACCESS_TOKEN: "ya29.of-yesterday" });
  const repository = at.client.repository(parseReference(`${gar}/acme/app:1`), provider);
  await expect(repository.headManifest("1", signal)).rejects.toMatchObject({
    code: "unauthorized",
    next: expect.stringContaining("GCP_ACCESS_TOKEN is good for an hour"),
  });
});
