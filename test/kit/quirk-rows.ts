import { BearerAuth, type BearerRules, type Login, lockingLogin, registryError } from "./quirk-auth.ts";
import { BlobHost, type BlobRules } from "./quirk-blobs.ts";
import type { QuirkNet } from "./quirk-net.ts";
import { QuirkRegistry, type QuirkRegistryRules } from "./quirk-registry.ts";
import type { Row } from "./quirk-row.ts";

/** A registry with a token service and a store of its own. */
export interface BearerRow extends Row {
  readonly auth: BearerAuth;
  readonly blobs: BlobHost;
}

interface BearerRegistry {
  readonly reference: string;
  readonly env: Row["env"];
  /** The password or token among them, and where it may be seen. */
  readonly secret: { readonly value: string; readonly hosts: readonly string[] };
  readonly bearer: BearerRules;
  readonly blobs: BlobRules;
  readonly status: 302 | 307;
  readonly onManifest?: NonNullable<QuirkRegistryRules["onManifest"]>;
}

function bearerRow(net: QuirkNet, rules: BearerRegistry): BearerRow {
  const { bearer, status, reference, env, secret, onManifest } = rules;
  net.plant(`the password for ${bearer.apiHost}`, secret.value, secret.hosts);
  const auth = new BearerAuth(net, bearer);
  const realm = new URL(bearer.realm);
  net.route(realm.host, realm.pathname, auth.answer);
  const blobs = new BlobHost(net, rules.blobs);
  const registry = new QuirkRegistry(net, {
    apiHost: bearer.apiHost,
    gate: auth.gate,
    blobs: { host: blobs, status },
    ...(onManifest === undefined ? {} : { onManifest }),
  });
  return { reference, env, secret: secret.value, registry, blobs, auth, issued: () => auth.tokens.count };
}

function one(username: string, password: string): Login {
  return (user, word) => (user === username && word === password ? "ok" : "wrong");
}

export interface HubRow extends BearerRow {
  /** What counts as a pull, so far. */
  readonly pulls: () => number;
  readonly failedLogins: () => number;
  /** The account gets another password, as its owner may do at any time. */
  readonly change: (password: string) => void;
}

/** Docker Hub: tokens of five minutes, pulls counted by GET of a manifest, names locked after failed logins. */
export function hubRow(net: QuirkNet): HubRow {
  const account = { username: "acmebot", password: "dckr_pat_quirk-hub-token" };
  const login = lockingLogin(net, account, { failuresMax: 5, seconds: 600 });
  let pulls = 0;
  const row = bearerRow(net, {
    reference: "docker.io/acme/app:1",
    env: { DOCKERHUB_USERNAME: account.username, DOCKERHUB_PASSWORD: account.password },
    secret: { value: account.password, hosts: ["auth.docker.io"] },
    bearer: {
      apiHost: "registry-1.docker.io",
      realm: "https://auth.docker.io/token",
      service: "registry.docker.io",
      login,
      lifeSeconds: 300,
      saysLife: true,
      form: "jwt",
    },
    blobs: { host: "production.cloudflare.docker.com", signing: "cloudfront", lifeSeconds: 600 },
    status: 307,
    onManifest: ({ method }) => {
      if (method === "GET") pulls += 1;
      return {
        "ratelimit-limit": "200;w=21600",
        "ratelimit-remaining": `${200 - pulls};w=21600`,
        "docker-ratelimit-source": "acmebot",
      };
    },
  });
  const change = (password: string): void => {
    account.password = password;
    net.plant("the hub's next password", password, ["auth.docker.io"]);
  };
  return { ...row, pulls: () => pulls, failedLogins: login.failures, change };
}

/** GitHub: tokens without `expires_in`; the token of the account is a bearer token, too, in base64. */
export function ghcrRow(net: QuirkNet): BearerRow & { readonly token: string } {
  const token = "ghp_quirkGithubTokenOfTheAccount000000";
  const row = bearerRow(net, {
    reference: "ghcr.io/acme/app:1",
    env: { GITHUB_USERNAME: "acme-bot", GITHUB_TOKEN: token },
    secret: { value: token, hosts: ["ghcr.io"] },
    bearer: {
      apiHost: "ghcr.io",
      realm: "https://ghcr.io/token",
      service: "ghcr.io",
      login: (_, password) => (password === token ? "ok" : "wrong"),
      wrongLogin: () => registryError(403, "DENIED", "denied"),
      lifeSeconds: 300,
      saysLife: false,
      otherBearer: (value) => value === Buffer.from(token).toString("base64"),
    },
    blobs: { host: "pkg-containers.githubusercontent.com", signing: "azure", lifeSeconds: 300 },
    status: 307,
  });
  return { ...row, token };
}

/** GitLab: the token service is gitlab.com, the registry is not. */
export function gitlabRow(net: QuirkNet): BearerRow {
  const password = "gldt-quirk-deploy-token";
  return bearerRow(net, {
    reference: "registry.gitlab.com/acme/team/app:1",
    env: { USERNAME: "gitlab+deploy-token-1", PASSWORD: password },
    secret: { value: password, hosts: ["gitlab.com"] },
    bearer: {
      apiHost: "registry.gitlab.com",
      realm: "https://gitlab.com/jwt/auth",
      service: "container_registry",
      login: one("gitlab+deploy-token-1", password),
      mayPull: (_, repository) => repository.startsWith("acme/"),
      lifeSeconds: 300,
      saysLife: true,
      form: "jwt",
    },
    blobs: { host: "cdn.registry.gitlab-static.net", signing: "google", lifeSeconds: 1200 },
    status: 307,
  });
}

/** NVIDIA's: one user name for all, and a token service that moves from the registry to a host of its own. */
export function ngcRow(net: QuirkNet): BearerRow & { readonly move: () => void } {
  const key = "nvapi-quirk-ngc-api-key";
  const row = bearerRow(net, {
    reference: "nvcr.io/acme/team/app:1",
    env: { NGC_API_KEY: key },
    secret: { value: key, hosts: ["nvcr.io", "authn.nvidia.com"] },
    bearer: {
      apiHost: "nvcr.io",
      realm: "https://nvcr.io/proxy_auth",
      login: one("$oauthtoken", key),
      lifeSeconds: 600,
      saysLife: true,
      form: "jwt",
    },
    blobs: { host: "xfiles.ngc.nvidia.com", signing: "cloudfront", lifeSeconds: 600 },
    status: 307,
  });
  net.route("authn.nvidia.com", "/token", row.auth.answer);
  const move = (): void => {
    row.auth.realm = "https://authn.nvidia.com/token";
    net.route("nvcr.io", "/proxy_auth", () => new Response("moved away", { status: 404 }));
  };
  return { ...row, move };
}

/** Quay: robots are called `ORGANISATION+NAME`; layers are behind CloudFront's signatures, by 302. */
export function quayRow(net: QuirkNet): BearerRow {
  const password = "QUIRKQUAYROBOTTOKEN0000000000000000000000";
  return bearerRow(net, {
    reference: "quay.io/acme/app:1",
    env: { USERNAME: "acme+puller", PASSWORD: password },
    secret: { value: password, hosts: ["quay.io"] },
    bearer: {
      apiHost: "quay.io",
      realm: "https://quay.io/v2/auth",
      service: "quay.io",
      login: one("acme+puller", password),
      lifeSeconds: 60,
      saysLife: false,
      form: "jwt",
      firstScopeOnly: true,
    },
    blobs: { host: "cdn01.quay.io", signing: "cloudfront", lifeSeconds: 600 },
    status: 302,
  });
}

/** Harbor: robots are called `robot$…`. One that is over still gets tokens, which are good for nothing. */
export function harborRow(net: QuirkNet): BearerRow & { readonly endRobot: () => void } {
  const username = "robot$acme+puller";
  const password = "quirkHarborRobotSecret00";
  let over = false;
  const row = bearerRow(net, {
    reference: "harbor.acme.example/acme/app:1",
    env: { USERNAME: username, PASSWORD: password },
    secret: { value: password, hosts: ["harbor.acme.example"] },
    bearer: {
      apiHost: "harbor.acme.example",
      realm: "https://harbor.acme.example/service/token",
      service: "harbor-registry",
      login: one(username, password),
      mayPull: () => !over,
      lifeSeconds: 1800,
      saysLife: true,
      form: "jwt",
    },
    blobs: { host: "s3.storage.acme.example", signing: "aws", lifeSeconds: 1200 },
    status: 307,
  });
  const endRobot = (): void => {
    over = true;
  };
  return { ...row, endRobot };
}

/** A registry that sends its layers itself, to tokens that live for six seconds: each read needs one that is good. */
export function briefRow(net: QuirkNet): Omit<BearerRow, "blobs"> {
  const apiHost = "brief.acme.example";
  const env = { USERNAME: "puller", PASSWORD: "quirkPasswordOfBriefTokens" };
  net.plant("the password for brief tokens", env.PASSWORD, [apiHost]);
  const auth = new BearerAuth(net, {
    apiHost,
    realm: `https://${apiHost}/token`,
    service: apiHost,
    login: one(env.USERNAME, env.PASSWORD),
    lifeSeconds: 6,
    saysLife: true,
  });
  net.route(apiHost, "/token", auth.answer);
  const registry = new QuirkRegistry(net, { apiHost, gate: auth.gate });
  const reference = `${apiHost}/acme/app:1`;
  return { reference, env, secret: env.PASSWORD, registry, auth, issued: () => auth.tokens.count };
}
