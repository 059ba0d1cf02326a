import { awsKeys, type HostileRow, passwordOf, signal } from "./hostile-row.test-kit.ts";

/** A credential for one registry, and a reference to another. */
const misdirected: readonly (readonly [credentialOf: string, reference: string])[] = [
  ["registry.example", "evil.example/acme/app:1"],
  ["registry.example", "registry.example.evil.example/acme/app:1"],
  ["registry.example", "sub.registry.example/acme/app:1"],
  ["registry.example", "registry.example:8443/acme/app:1"],
  ["registry.example:8443", "registry.example/acme/app:1"],
  ["registry.example:443", "registry.example/acme/app:1"],
  ["registry.example:80", "registry.example/acme/app:1"],
  ["Registry.Example", "registry.example/acme/app:1"],
  ["registry.example.", "registry.example/acme/app:1"],
  ["https://registry.example", "registry.example/acme/app:1"],
  ["registry.example/acme", "registry.example/acme/app:1"],
  ["", "registry.example/acme/app:1"],
  ["registry-1.docker.io", "docker.io/acme/app:1"],
  ["docker.io", "evil.example/docker.io/app:1"],
  ["docker.io", "docker.io.evil.example/acme/app:1"],
  ["docker.io", "auth.docker.io/acme/app:1"],
  ["ghcr.io", "acme/app:1"],
  ["localhost:5000", "127.0.0.1:5000/acme/app:1"],
  ["rеgistry.example", "registry.example/acme/app:1"],
];

const misdirectedRows: readonly HostileRow[] = misdirected.map(([credentialOf, reference]) => ({
  name: `a credential for ${JSON.stringify(credentialOf)}, used for ${reference}`,
  credentialOf,
  reference,
  outcome: "egress_refused",
}));

const ecr = "111111111111.dkr.ecr.us-east-1.amazonaws.com";

/** Hosts that look like a cloud's registry, with that cloud's keys. */
const lookAlikes: readonly (readonly [registry: string, credential: Readonly<Record<string, string>>])[] = [
  ...[
    `${ecr}.evil.example`,
    `${ecr}.cn.evil.example`,
    "111111111111.dkr.ecr.us-east-1.amazonaws.com.evil.com",
    "111111111111.dkr.ecr.us-east-1.amazonaws.co",
    "111111111111.dkr.ecr.us-east-1.evil.amazonaws.com",
    "111111111111.dkr.ecr.us-east-1.amazonaws-com.example",
    "evil-111111111111.dkr.ecr.us-east-1.amazonaws.com",
    "evil.111111111111.dkr.ecr.us-east-1.amazonaws.com",
    "11111111111.dkr.ecr.us-east-1.amazonaws.com",
    "1111111111111.dkr.ecr.us-east-1.amazonaws.com",
    "111111111111.dkr.ecr.evil.example.amazonaws.com",
    "111111111111.dkr.ecr.cn-north-1.amazonaws.com",
    "dkr.ecr.us-east-1.amazonaws.com",
    `${ecr}:8443`,
    "public.ecr.aws.evil.example",
    "amazonaws.com",
  ].map((registry) => [registry, awsKeys] as const),
  ...[
    "gcr.io.evil.example",
    "evil-gcr.io",
    "pkg.dev.evil.example",
    "us-docker.pkg.dev:8443",
    "evilpkg.dev",
  ].map((registry) => [registry, { GCP_ACCESS_TOKEN: passwordOf.PASSWORD }] as const),
  ...["acme.azurecr.io.evil.example", "acmeazurecr.io", "acme.azurecr.io:8443"].map(
    (registry) =>
      [registry, { AZURE_CLIENT_ID: "client", AZURE_CLIENT_SECRET: passwordOf.PASSWORD }] as const,
  ),
  ...["docker.io.evil.example", "evildocker.io", "docker.io:8443"].map(
    (registry) =>
      [registry, { DOCKERHUB_USERNAME: "alice", DOCKERHUB_PASSWORD: passwordOf.PASSWORD }] as const,
  ),
  ...["ghcr.io.evil.example", "evilghcr.io", "containers.evil.example"].map(
    (registry) => [registry, { GITHUB_USERNAME: "alice", GITHUB_TOKEN: passwordOf.PASSWORD }] as const,
  ),
  ...["nvcr.io.evil.example", "evilnvcr.io"].map(
    (registry) => [registry, { NGC_API_KEY: passwordOf.PASSWORD }] as const,
  ),
];

const right: Readonly<Record<string, readonly [registry: string, told: readonly string[]]>> = {
  AWS_ACCESS_KEY_ID: [ecr, [`https://${ecr}`, "https://api.ecr.us-east-1.amazonaws.com"]],
  GCP_ACCESS_TOKEN: ["us-docker.pkg.dev", ["https://us-docker.pkg.dev"]],
  AZURE_CLIENT_ID: ["acme.azurecr.io", ["https://acme.azurecr.io"]],
  DOCKERHUB_USERNAME: ["docker.io", ["https://registry-1.docker.io"]],
  GITHUB_USERNAME: ["ghcr.io", ["https://ghcr.io"]],
  NGC_API_KEY: ["nvcr.io", ["https://nvcr.io"]],
};

const lookAlikeRows: readonly HostileRow[] = lookAlikes.map(([registry, credential]) => {
  const keys = Object.keys(credential);
  const [rightRegistry, told] = right[keys[0] ?? ""] ?? ["", []];
  return {
    name: `${keys[0]} for ${registry}`,
    reference: `${registry}/acme/app:1`,
    credential,
    outcome: "registry_mismatch",
    twin: { reference: `${rightRegistry}/acme/app:1`, outcome: "served", told: [...told] },
  };
});

const headers = { Authorization: `Bearer ${passwordOf.PASSWORD}` };
const dns = { "sts.inside.example": [["10.0.0.7"]], "metadata.google.internal": [["169.254.169.254"]] };

/** What an issuer's address may have become, by a setting or by an answer. */
const issuers: readonly string[] = [
  "http://sts.amazonaws.com/",
  "http://oauth2.googleapis.com/token",
  "https://127.0.0.1/token",
  "https://2130706433/token",
  "https://[::1]/token",
  "https://[::ffff:169.254.169.254]/token",
  "https://169.254.169.254/latest/api/token",
  "https://metadata.google.internal/computeMetadata/v1/",
  "https://sts.inside.example/",
  "https://alice@sts.amazonaws.com/",
  "https://sts.amazonaws.com@evil.example/",
  "file:///var/run/secrets/token",
  "sts.amazonaws.com",
  "",
];

const issuerRows: readonly HostileRow[] = issuers.map((url) => ({
  name: `an issuer at ${JSON.stringify(url)}`,
  dns,
  act: ({ client }) => client.issuerFetch(url, { method: "POST", headers, signal }),
  outcome: "egress_refused",
  ...(url === "https://sts.inside.example/"
    ? {
        twin: {
          policy: { privateHosts: new Set(["sts.inside.example"]) },
          credentialOf: "sts.inside.example",
          outcome: "served",
          told: ["https://sts.inside.example"],
          reached: ["10.0.0.7"],
        },
      }
    : {}),
}));

const metadata: readonly string[] = [
  "http://127.0.0.1/latest/api/token",
  "http://169.254.169.253/latest/api/token",
  "http://169.254.169.254:8080/latest/api/token",
  "https://169.254.169.254/latest/api/token",
  "http://169.254.169.254.evil.example/latest/api/token",
  "http://169.254.169.254@evil.example/latest/api/token",
  "http://evil.example/?169.254.169.254",
  "http://metadata.google.internal.evil.example/",
  "http://metadata/computeMetadata/v1/",
  "http://[::ffff:169.254.169.254]/latest/api/token",
  "http://[fd00:ec2::255]/latest/api/token",
  "http://evil.example/token",
];

const metadataRows: readonly HostileRow[] = metadata.map((url) => ({
  name: `a metadata service at ${url}`,
  dns,
  act: ({ client }) => client.metadataFetch(url, { method: "PUT", headers, signal }),
  outcome: "egress_refused",
}));

/** A mirror is the operator's; where it leads is not. */
const mirrorRows: readonly HostileRow[] = ["https://127.0.0.1/blob", "http://169.254.169.254/blob"].map(
  (location) => ({
    name: `a mirror that redirects to ${location}`,
    policy: {
      mirrors: new Map([
        ["registry.example", [{ url: new URL("https://mirror.example"), namespaced: false }]],
      ]),
    },
    answer: ({ origin }) =>
      origin === "https://mirror.example" ? { status: 307, headers: { location } } : undefined,
    act: async ({ repository }) => {
      const digest = `sha256:${"a".repeat(64)}`;
      await repository().blob({ digest, size: 3, mediaType: "application/octet-stream" }, signal);
    },
    outcome: "digest_mismatch",
    told: ["https://registry.example"],
  }),
);

export const credentialRows: readonly HostileRow[] = [
  ...misdirectedRows,
  ...lookAlikeRows,
  ...issuerRows,
  ...metadataRows,
  ...mirrorRows,
];
