import { RegistryClient } from "./client.ts";
import { mediaTypes } from "./descriptor.ts";
import { FailedLogins } from "./failed-logins.ts";
import { makeImage } from "./image.test-kit.ts";
import { type VirtualClock, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, startRawServer } from "./raw-server.test-kit.ts";

export const scriptedImage = makeImage();

export interface Login {
  readonly wrong: boolean;
  readonly scopes: readonly string[];
}

/** A registry of one account, `alice`, whose every trait can be changed at any time. */
export interface ScriptedRegistry {
  /** As it stands in references. */
  readonly registry: string;
  readonly client: RegistryClient;
  readonly clock: VirtualClock;
  /** `jwt`, `opaque`: by a token service, whose tokens say what they grant or do not. `open`: nobody is asked. */
  auth: "jwt" | "opaque" | "basic" | "open";
  password: string;
  /** What the account may do, in every repository. */
  actions: readonly string[];
  /** That hold the image, under its digest and the tag `1`. */
  repositories: readonly string[];
  /** Every request gets this status. */
  trouble: number | undefined;
  /** Uploads that were begun and not cancelled. */
  readonly uploads: Set<string>;
  readonly logins: Login[];
  lines(): readonly string[];
  stop(): Promise<void>;
}

/** @param registry a name under which it is reached, such as docker.io; by default its address */
export async function startScriptedRegistry(registry?: string): Promise<ScriptedRegistry> {
  const server = await startRawServer((request) => answer(request));
  const connect = new URL(`http://${server.host}`);
  const named = registry === "docker.io" ? ["registry-1.docker.io", "auth.docker.io"] : [];
  const clock = virtualClock();
  const policy = {
    insecureHosts: new Set([server.host]),
    privateHosts: new Set<string>(),
    hosts: new Map(named.map((host) => [host, { connect }])),
    trialEveryMs: 5,
    attemptsMax: 2,
  };
  const client = new RegistryClient({ policy, clock, failedLogins: new FailedLogins() });
  const realm = registry === undefined ? `http://${server.host}/token` : "https://auth.docker.io/token";
  const scripted: ScriptedRegistry = {
    registry: registry ?? server.host,
    client,
    clock,
    auth: "jwt",
    password: "right",
    actions: ["pull"],
    repositories: ["acme/app"],
    trouble: undefined,
    uploads: new Set(),
    logins: [],
    lines: () => server.lines(),
    stop: () => server.stop(),
  };

  function answer(request: RawRequest): RawReply {
    if (scripted.trouble !== undefined) return { status: scripted.trouble, body: "{}" };
    if (request.url.pathname === "/token") return token(request);
    const [, repository = "", rest = ""] =
      /^\/v2\/(?:(.+?)\/(manifests\/.+|tags\/list|blobs\/uploads\/.*))?$/.exec(request.url.pathname) ?? [];
    const action = rest.startsWith("blobs") ? "push" : "pull";
    const refused = gate(request, repository, action);
    if (refused !== undefined) return refused;
    if (repository === "") return { status: 200, body: "{}" };
    if (rest.startsWith("blobs")) return upload(request, repository);
    if (!scripted.repositories.includes(repository)) return error(404, "NAME_UNKNOWN");
    if (rest === "tags/list") return { status: 200, body: JSON.stringify({ tags: ["1"] }) };
    return manifest(rest.slice("manifests/".length));
  }

  function gate(request: RawRequest, repository: string, action: string): RawReply | undefined {
    const { auth } = scripted;
    if (auth === "open") return undefined;
    const header = request.headers.get("authorization") ?? "";
    if (auth === "basic") {
      if (header === "") return { status: 401, headers: { "www-authenticate": 'Basic realm="acme"' } };
      if (!login(header, [])) return { status: 401, headers: { "www-authenticate": 'Basic realm="acme"' } };
      const may = repository === "" || scripted.actions.includes(action);
      return may ? undefined : error(403, "DENIED");
    }
    const granted = grantOf(header);
    if (granted !== undefined && repository === "") return undefined;
    if (granted?.some((scope) => scope.startsWith(`repository:${repository}:`) && scope.includes(action)))
      return undefined;
    const scope = repository === "" ? "" : `,scope="repository:${repository}:${action}"`;
    const challenge = `Bearer realm="${realm}",service="acme"${scope}`;
    return { ...error(401, "UNAUTHORIZED"), headers: { "www-authenticate": challenge } };
  }

  function token(request: RawRequest): RawReply {
    const scopes = request.url.searchParams.getAll("scope");
    if (!login(request.headers.get("authorization") ?? "", scopes)) return error(401, "UNAUTHORIZED");
    const access = scopes.map((scope) => {
      const [type = "", name = "", asked = ""] = scope.split(":");
      return { type, name, actions: asked.split(",").filter((one) => scripted.actions.includes(one)) };
    });
    const grant = access.map(({ type, name, actions }) => `${type}:${name}:${actions.join()}`);
    const claims = scripted.auth === "jwt" ? { access, grant } : { grant };
    const body = Buffer.from(JSON.stringify(claims)).toString("base64url");
    const made = scripted.auth === "jwt" ? `e30.${body}.c2ln` : body;
    return { status: 200, body: JSON.stringify({ token: made, expires_in: 300 }) };
  }

  function login(header: string, scopes: readonly string[]): boolean {
    const pair = Buffer.from(header.replace(/^Basic /, ""), "base64").toString();
    const wrong = pair !== `alice:${scripted.password}`;
    scripted.logins.push({ wrong, scopes });
    return !wrong;
  }

  function upload({ method, url }: RawRequest, repository: string): RawReply {
    if (method === "DELETE") {
      scripted.uploads.delete(url.pathname);
      return { status: 204 };
    }
    const path = `/v2/${repository}/blobs/uploads/${crypto.randomUUID()}`;
    scripted.uploads.add(path);
    return { status: 202, headers: { location: path } };
  }

  return scripted;
}

function grantOf(header: string): readonly string[] | undefined {
  const token = header.replace(/^Bearer /, "");
  const body = token.split(".")[1] ?? token;
  try {
    return JSON.parse(Buffer.from(body, "base64url").toString()).grant;
  } catch {
    return undefined;
  }
}

function manifest(name: string): RawReply {
  const { digest } = scriptedImage.manifest;
  if (name !== "1" && name !== digest) return error(404, "MANIFEST_UNKNOWN");
  const headers = { "content-type": mediaTypes.ociManifest, "docker-content-digest": digest };
  return { status: 200, headers, body: scriptedImage.manifestBytes };
}

function error(status: number, code: string): RawReply {
  return { status, body: JSON.stringify({ errors: [{ code }] }) };
}
