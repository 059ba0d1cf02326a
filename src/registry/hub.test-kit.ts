import { anonymousProvider, type CredentialProvider, provedAnew } from "../credential/provider.ts";
import { parseReference } from "../reference/reference.ts";
import { RegistryClient } from "./client.ts";
import { mediaTypes } from "./descriptor.ts";
import { FailedLogins } from "./failed-logins.ts";
import { makeImage } from "./image.test-kit.ts";
import { basicProvider, type VirtualClock, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, type RawServer, startRawServer } from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const image = makeImage();
const goodPassword = "right";
const lockedAfter = 5;
const lockMs = 10 * 60_000;

/**
 * Docker Hub: token service and registry under their names, GETs of manifests counted and HEADs free, a user name locked
 * after five failed logins within ten minutes.
 */
export interface Hub {
  readonly server: RawServer;
  readonly clock: VirtualClock;
  readonly image: typeof image;
  /** Pulls that are left. */
  remaining: number;
  /** Logins that were refused, locked ones included. */
  failedLogins(): number;
  isLocked(): boolean;
  /** As after five failed logins. */
  lock(): void;
  /** `acme/app:1` with a password, proved anew as each build does. */
  repository(password?: string): Repository;
  stop(): Promise<void>;
}

export async function startHub(clock = virtualClock()): Promise<Hub> {
  const failures: number[] = [];
  const locked = (): boolean => failures.filter((atMs) => clock.now() < atMs + lockMs).length >= lockedAfter;
  const limits = (): Record<string, string> => ({
    "ratelimit-limit": "100;w=21600",
    "ratelimit-remaining": `${hub.remaining};w=21600`,
    "docker-ratelimit-source": "8f2ab7ad-1c3b-4a4e-9f0e-1f2a3b4c5d6e",
  });

  function login(request: RawRequest): RawReply {
    const header = request.headers.get("authorization");
    const pair = Buffer.from(header?.replace(/^Basic /, "") ?? "", "base64").toString();
    if (header !== null && (locked() || !pair.endsWith(`:${goodPassword}`))) {
      failures.push(clock.now());
      return { status: locked() ? 429 : 401, body: '{"details":"incorrect username or password"}' };
    }
    return { status: 200, body: JSON.stringify({ token: `t-${pair}`, expires_in: 300 }) };
  }

  function registry(request: RawRequest): RawReply {
    const { method, url, headers } = request;
    if (headers.get("authorization")?.startsWith("Bearer t-") !== true) {
      const scope = 'scope="repository:acme/app:pull"';
      const realm = 'realm="https://auth.docker.io/token",service="registry.docker.io"';
      return { status: 401, headers: { "www-authenticate": `Bearer ${realm},${scope}` } };
    }
    const [, kind, name = ""] = /\/(manifests|blobs)\/(.*)$/.exec(url.pathname) ?? [];
    if (kind === "blobs") return { status: 200, body: image.blobs.get(name) ?? "" };
    if (method === "GET") {
      if (hub.remaining === 0)
        return { status: 429, headers: limits(), body: '{"errors":[{"code":"TOOMANYREQUESTS"}]}' };
      hub.remaining -= 1;
    }
    const digest = image.manifest.digest;
    return {
      status: 200,
      headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": digest, ...limits() },
      body: image.manifestBytes,
    };
  }

  const server = await startRawServer((request) =>
    request.headers.get("host") === "auth.docker.io" ? login(request) : registry(request),
  );
  const connect = new URL(`http://${server.host}`);
  const policy = {
    insecureHosts: new Set<string>(),
    privateHosts: new Set<string>(),
    hosts: new Map(["registry-1.docker.io", "auth.docker.io"].map((host) => [host, { connect }])),
    trialEveryMs: 5,
  };
  const client = new RegistryClient({ policy, clock, failedLogins: new FailedLogins() });
  const hub: Hub = {
    server,
    clock,
    image,
    remaining: 100,
    failedLogins: () => failures.length,
    isLocked: locked,
    lock: () => failures.push(...Array<number>(lockedAfter).fill(clock.now())),
    repository: (password) => client.repository(parseReference("docker.io/acme/app:1"), providerOf(password)),
    stop: () => server.stop(),
  };
  return hub;
}

function providerOf(password: string | undefined): CredentialProvider {
  if (password === undefined) return anonymousProvider("docker.io");
  return provedAnew(basicProvider("docker.io", password));
}
