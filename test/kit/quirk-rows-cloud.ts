import type { Moto } from "./moto.ts";
import { BearerAuth, basicGate, registryError } from "./quirk-auth.ts";
import { BlobHost } from "./quirk-blobs.ts";
import { AzureTokens, EcrPasswords, type GoogleTokens, passOn } from "./quirk-clouds.ts";
import type { QuirkNet } from "./quirk-net.ts";
import { QuirkRegistry } from "./quirk-registry.ts";
import type { Row } from "./quirk-row.ts";

const awsKeys = {
  AWS_ACCESS_KEY_ID: "AKIAQUIRKTEST0000001",
  AWS_SECRET_ACCESS_KEY: "quirk/secret+access/key/that/is/nowhere00",
};

/** Where a registry of ECR and the API of its passwords are. */
export interface EcrPlace {
  readonly apiHost: string;
  readonly api: string;
  readonly region: string;
}

const commonPlace: EcrPlace = {
  apiHost: "111111111111.dkr.ecr.us-east-1.amazonaws.com",
  api: "api.ecr.us-east-1.amazonaws.com",
  region: "us-east-1",
};

/** China, FIPS, dual-stack: other hosts for the registry, and others again for the API. */
export const otherEcrPlaces: readonly EcrPlace[] = [
  {
    apiHost: "111111111111.dkr.ecr.cn-north-1.amazonaws.com.cn",
    api: "api.ecr.cn-north-1.amazonaws.com.cn",
    region: "cn-north-1",
  },
  {
    apiHost: "111111111111.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
    api: "ecr-fips.us-gov-west-1.amazonaws.com",
    region: "us-gov-west-1",
  },
  {
    apiHost: "111111111111.dkr-ecr.eu-west-1.on.aws",
    api: "ecr.eu-west-1.api.aws",
    region: "eu-west-1",
  },
];

/** Amazon ECR: basic credentials that its API gives, over after twelve hours: then 403, and no challenge. */
export function ecrRow(
  net: QuirkNet,
  moto: Moto,
  { apiHost, api, region }: EcrPlace = commonPlace,
): Row & { readonly passwords: EcrPasswords } {
  const passwords = new EcrPasswords(net);
  passwords.serve(api, moto, apiHost);
  const sts = "sts.us-east-1.amazonaws.com";
  net.route(sts, "/", (ask) => passOn(ask, moto.host));
  net.plant("the AWS secret key", awsKeys.AWS_SECRET_ACCESS_KEY, []);
  const sessionToken = `quirk-session-token/that/goes/to/aws/in/${region}==`;
  net.plant("the AWS session token", sessionToken, [api, sts]);
  const bucket = `prod-${region}-starport-layer-bucket.s3.${region}.amazonaws.com`;
  const blobs = new BlobHost(net, { host: bucket, signing: "aws", lifeSeconds: 3600 });
  const gate = basicGate({
    challenge: `Basic realm="https://${apiHost}/",service="ecr.amazonaws.com"`,
    login: (username, password) => passwords.verdict(username, password),
    expired: () =>
      registryError(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again."),
  });
  const registry = new QuirkRegistry(net, { apiHost, gate, blobs: { host: blobs, status: 307 } });
  return {
    reference: `${apiHost}/acme/app:1`,
    env: { ...awsKeys, AWS_SESSION_TOKEN: sessionToken, AWS_REGION: region },
    registry,
    blobs,
    passwords,
    issued: () => passwords.count,
  };
}

/** Amazon ECR Public: a token service that takes the password of `ecr-public`, and answers 400 to one that is over. */
export function ecrPublicRow(net: QuirkNet, moto: Moto): Row & { readonly passwords: EcrPasswords } {
  const apiHost = "public.ecr.aws";
  const passwords = new EcrPasswords(net);
  passwords.serve("api.ecr-public.us-east-1.amazonaws.com", moto, apiHost);
  const expired = (): Response => registryError(400, "DENIED", "Your authorization token has expired.");
  const auth = new BearerAuth(net, {
    apiHost,
    realm: "https://public.ecr.aws/token/",
    service: "public.ecr.aws",
    challengedScope: "aws",
    login: (username, password) => passwords.verdict(username, password),
    lifeSeconds: EcrPasswords.lifeSeconds,
    saysLife: false,
    expiredToken: expired,
    expiredLogin: expired,
  });
  net.route(apiHost, "/token/", auth.answer);
  const blobs = new BlobHost(net, {
    host: "d5l0dvt14r5h8.cloudfront.net",
    signing: "cloudfront",
    lifeSeconds: 3600,
  });
  const registry = new QuirkRegistry(net, { apiHost, gate: auth.gate, blobs: { host: blobs, status: 307 } });
  return {
    reference: `${apiHost}/acme/app:1`,
    env: awsKeys,
    registry,
    blobs,
    passwords,
    issued: () => passwords.count,
  };
}

/** Artifact Registry: access tokens of an hour, which a service account's key makes. */
export function googleRow(net: QuirkNet, google: GoogleTokens, apiHost: string, env: Row["env"]): Row {
  const auth = new BearerAuth(net, {
    apiHost,
    realm: `https://${apiHost}/v2/token`,
    service: apiHost,
    // What `/v2/` says there.
    challengedService: "none",
    login: (username, password) => google.login(username, password),
    lifeSeconds: 600,
    saysLife: true,
  });
  net.route(apiHost, "/v2/token", auth.answer);
  const blobs = new BlobHost(net, {
    host: `${apiHost.replaceAll(".", "-")}.storage.googleapis.com`,
    signing: "google",
    lifeSeconds: 1200,
  });
  const registry = new QuirkRegistry(net, { apiHost, gate: auth.gate, blobs: { host: blobs, status: 302 } });
  return { reference: `${apiHost}/acme/team/app:1`, env, registry, blobs, issued: () => google.tokens.count };
}

const entraApp = {
  tenant: "11111111-2222-3333-4444-555555555555",
  clientId: "99999999-8888-7777-6666-555555555555",
  secret: "Q~entra.client-secret_of.the~quirk.registry",
};

/** Azure: Entra's token, exchanged for a refresh token of three hours, and that for tokens that only say `exp`. */
export function acrRow(net: QuirkNet): Row & { readonly auth: BearerAuth; readonly azure: AzureTokens } {
  const apiHost = "acmequirk.azurecr.io";
  const azure = new AzureTokens(net, entraApp, apiHost);
  const auth = new BearerAuth(net, {
    apiHost,
    realm: `https://${apiHost}/oauth2/token`,
    service: apiHost,
    login: () => "wrong",
    refresh: (token) => {
      const grant = azure.refresh.find(token);
      return grant === "unknown" ? undefined : grant === "expired" ? "expired" : grant.subject;
    },
    lifeSeconds: 4500,
    saysLife: false,
    form: "jwt",
    field: "access_token",
  });
  net.route(apiHost, "/oauth2/token", auth.answer);
  const blobs = new BlobHost(net, {
    host: "eusmanaged1.blob.core.windows.net",
    signing: "azure",
    lifeSeconds: 1200,
  });
  const registry = new QuirkRegistry(net, { apiHost, gate: auth.gate, blobs: { host: blobs, status: 307 } });
  return {
    reference: `${apiHost}/acme/app:1`,
    env: {
      AZURE_CLIENT_ID: entraApp.clientId,
      AZURE_CLIENT_SECRET: entraApp.secret,
      AZURE_TENANT_ID: entraApp.tenant,
    },
    registry,
    blobs,
    auth,
    azure,
    issued: () => azure.refresh.count,
  };
}
