import { createProvider } from "../credential/create-provider.ts";
import { detectCredentialType } from "../credential/detect.ts";
import { IssuedAuthorizations } from "../credential/issued.ts";
import { anonymousProvider, type CredentialProvider } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import { hostPlatform } from "../reference/platform.ts";
import { parseReference, registryApiHost } from "../reference/reference.ts";
import { RegistryClient } from "./client.ts";
import { mediaTypes } from "./descriptor.ts";
import type { HostileInternet, HostileReply, Seen } from "./hostile-internet.test-kit.ts";
import { makeImage } from "./image.test-kit.ts";
import type { RegistryPolicy } from "./policy.ts";
import { noProxies, type Proxies } from "./proxy.ts";
import { type VirtualClock, virtualClock } from "./quirks.test-kit.ts";
import type { Repository } from "./repository.ts";

/** One way to be led to a wrong place, and what must become of it. */
export interface HostileRow {
  readonly name: string;
  /** What a tenant writes; default `registry.example/acme/app:1`. */
  readonly reference?: string;
  /** Default: a user name and a password. Keys of a credential map, or none at all. */
  readonly credential?: Readonly<Record<string, string>>;
  /** The registry that the credential is for, when it is not the reference's. */
  readonly credentialOf?: string;
  /** Answers of DNS, by look-up; the last one stays. Other names have a public address of their own. */
  readonly dns?: Readonly<Record<string, readonly (readonly string[])[]>>;
  /** `WWW-Authenticate` of a registry that wants a credential. */
  readonly challenge?: string;
  /** Where a registry sends whoever has shown the credential. */
  readonly location?: string;
  readonly status?: number;
  /** In place of the registry that the fields above describe, where it gives something. */
  readonly answer?: (request: Seen) => HostileReply | undefined;
  readonly policy?: Partial<RegistryPolicy>;
  /** Default: the head of the manifest. */
  readonly act?: (means: Means) => Promise<unknown>;
  /** `served`, or the code of the error. */
  readonly outcome: string;
  /** The origins that came to know the credential, exactly. */
  readonly told?: readonly string[];
  /** Addresses that must have been connected to; default: not looked at. */
  readonly reached?: readonly string[];
  /** The same with the operator's leave: the proof that the row could fail. */
  readonly twin?: Partial<HostileRow>;
}

export interface Means {
  readonly client: RegistryClient;
  readonly clock: VirtualClock;
  readonly repository: () => Repository;
}

export interface RowResult {
  readonly name: string;
  readonly outcome: string;
  readonly told: readonly string[];
  readonly connects: readonly string[];
  readonly wrong: readonly string[];
}

export const signal = new AbortController().signal;
export const image = makeImage();
const password = "the-secret-password";
/** Every form in which a credential of the corpus crosses the wire. */
const secrets: readonly string[] = [
  password,
  ...["alice", "client", "oauth2accesstoken", "$oauthtoken"].map((user) => btoa(`${user}:${password}`)),
  "the-refresh-token",
  "the-session-token",
  "the-ecr-password",
  btoa("AWS:the-ecr-password"),
  "the-bearer-token",
];
export const passwordOf = { USERNAME: "alice", PASSWORD: password };
export const refreshToken = { REGISTRY_IDENTITY_TOKEN: "the-refresh-token" };
export const awsKeys = {
  AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE",
  AWS_SECRET_ACCESS_KEY: password,
  AWS_SESSION_TOKEN: "the-session-token",
};

/** Public addresses of the corpus; whatever else is connected to was private. */
export const publicAddresses: readonly string[] = ["8.8.8.8", "9.9.9.9", "2606:4700:4700::1111"];
const [registryAddress = "", othersAddress = ""] = publicAddresses;

/** Token services on other hosts than their registries, written down here on their own. */
const pairs: Readonly<Record<string, readonly string[]>> = {
  "docker.io": ["https://auth.docker.io"],
  "registry.gitlab.com": ["https://gitlab.com"],
  "nvcr.io": ["https://authn.nvidia.com"],
  "111111111111.dkr.ecr.us-east-1.amazonaws.com": ["https://api.ecr.us-east-1.amazonaws.com"],
};

/** Lets a row happen, on the internet as it is or through the proxy in it. */
export async function runRow(
  row: HostileRow,
  internet: HostileInternet,
  ca: string,
  through: Proxies = noProxies,
): Promise<RowResult> {
  const latest = new Map<string, readonly string[]>();
  const astray: string[] = [];
  internet.begin(
    (request) => row.answer?.(request) ?? usualAnswer(row, request),
    (target) => {
      const host = target.replace(/:\d+$/, "");
      const mayBe = latest.get(host)?.every((address) => publicAddresses.includes(address));
      if (!(mayBe ?? isMirror(row, host))) astray.push(`the proxy for ${target}`);
    },
  );
  const clock = virtualClock();
  const insecureHosts = row.policy?.insecureHosts ?? new Set();
  const client = new RegistryClient({
    clock,
    resolveHost: resolver(row, latest),
    policy: {
      proxies: through,
      privateHosts: new Set(),
      ca,
      attemptsMax: 1,
      trialEveryMs: 5,
      ...row.policy,
      insecureHosts,
    },
  });
  const repository = (): Repository => {
    const reference = parseReference(row.reference ?? "registry.example/acme/app:1");
    return client.repository(reference, providerOf(row, reference.registry, client));
  };
  let outcome = "served";
  try {
    await (row.act ?? headManifest)({ client, clock, repository });
  } catch (error) {
    outcome = (error as { code?: string }).code ?? String(error);
  }
  const told = [...new Set(internet.requests.filter(holdsSecret).map(({ origin }) => origin))].sort();
  const right = rightOrigins(row, insecureHosts);
  const wrong = [...told.filter((origin) => !right.has(origin)), ...astray];
  // Bytes count also where they are no request.
  const whole = internet.requests.map(textOf).join("\n");
  if (secrets.some((secret) => internet.received().includes(secret) && !whole.includes(secret)))
    wrong.push("bytes");
  return { name: row.name, outcome, told, connects: [...new Set(internet.connects)].sort(), wrong };
}

const headManifest = ({ repository }: Means): Promise<unknown> => repository().headManifest("1", signal);

/** For rows about documents: the manifest itself. */
export const resolveImage = ({ repository }: Means): Promise<unknown> =>
  repository().resolve(hostPlatform(), signal);

function providerOf(row: HostileRow, registry: string, client: RegistryClient): CredentialProvider {
  const { credential = passwordOf, credentialOf = registry } = row;
  if (Object.keys(credential).length === 0) return anonymousProvider(credentialOf);
  const credentials = credentialMap(credential);
  const type = detectCredentialType(credentialOf, credentials);
  return createProvider(
    { registry: credentialOf, type, credentials },
    { fetch: client.issuerFetch, issued: new IssuedAuthorizations() },
  );
}

/** The operator's own: not judged. */
function isMirror(row: HostileRow, host: string): boolean {
  return [...(row.policy?.mirrors?.values() ?? [])].flat().some(({ url }) => url.hostname === host);
}

/** @param latest gets what was last said of each name */
function resolver(
  row: HostileRow,
  latest: Map<string, readonly string[]>,
): (name: string) => Promise<readonly string[]> {
  const counts = new Map<string, number>();
  return async (name) => {
    const count = counts.get(name) ?? 0;
    counts.set(name, count + 1);
    const answers = row.dns?.[name] ?? [[name === "registry.example" ? registryAddress : othersAddress]];
    const answer = answers[Math.min(count, answers.length - 1)] ?? [];
    latest.set(name, answer);
    return answer;
  };
}

/** A registry with a token service on each of its hosts, and storage beside it. */
function usualAnswer(row: HostileRow, request: Seen): HostileReply {
  const { pathname } = request.url;
  if (request.headers.get("x-amz-target")?.endsWith(".GetAuthorizationToken")) {
    const authorizationToken = btoa("AWS:the-ecr-password");
    return { status: 200, body: JSON.stringify({ authorizationData: [{ authorizationToken }] }) };
  }
  if (request.url.href.includes("token"))
    return { status: 200, body: JSON.stringify({ token: "the-bearer-token" }) };
  const manifest = {
    status: 200,
    headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest },
    body: image.manifestBytes,
  };
  if (!pathname.startsWith("/v2/")) return manifest;
  const challenge = row.challenge ?? 'Basic realm="registry"';
  const anonymous = row.credential !== undefined && Object.keys(row.credential).length === 0;
  if (!request.headers.has("authorization") && (!anonymous || row.challenge !== undefined))
    return { status: 401, headers: { "www-authenticate": challenge } };
  if (row.location === undefined) return manifest;
  return { status: row.status ?? 307, headers: { location: row.location } };
}

function textOf(request: Seen): string {
  return `${request.url.href} ${decodeURIComponent(request.url.search)} ${[...request.headers].flat().join(" ")} ${request.body}`;
}

function holdsSecret(request: Seen): boolean {
  return secrets.some((secret) => textOf(request).includes(secret));
}

/** Who may know the credential: its registry, the registry's own token service, and whom the operator approved. */
function rightOrigins(row: HostileRow, insecureHosts: ReadonlySet<string>): ReadonlySet<string> {
  const reference = row.reference ?? "registry.example/acme/app:1";
  const registry = registryOf(row.credentialOf === undefined ? reference : `${row.credentialOf}/a`);
  if (registry === undefined) return new Set();
  const realms = row.policy?.realmHosts?.get(registry) ?? [];
  const hosts = [registryApiHost(registry), ...realms];
  const origins = hosts.map(
    (host) => new URL(`${insecureHosts.has(host) ? "http" : "https"}://${host}`).origin,
  );
  return new Set([...origins, ...(pairs[registry] ?? [])]);
}

function registryOf(reference: string): string | undefined {
  try {
    return parseReference(reference).registry;
  } catch {
    return undefined;
  }
}
