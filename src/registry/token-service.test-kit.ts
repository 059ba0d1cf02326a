import { createPrivateKey, type KeyObject, randomUUID, sign } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../std/spawn.ts";

/** A user of the token service, and the repositories that he may pull and push. */
export interface TokenUser {
  readonly password: string;
  readonly repositories: readonly string[];
}

/** A token service as distribution specifies it: basic credentials in, a signed JWT out. */
export interface TokenService {
  readonly realm: string;
  readonly service: string;
  readonly issuer: string;
  /** PEM, for the registry's `rootcertbundle`. */
  readonly certificate: string;
  /** One entry per request: `METHOD user scope…`. */
  readonly requests: readonly string[];
  stop(): Promise<void>;
}

export interface TokenServiceOptions {
  readonly users: Readonly<Record<string, TokenUser>>;
  /** What the answer says, and how long the token truly lives. */
  readonly lifeSeconds?: number;
}

const service = "registry.test";
const issuer = "token.test";

export async function startTokenService(options: TokenServiceOptions): Promise<TokenService> {
  const { key, certificate } = await keyAndCertificate();
  const requests: string[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => answer(request, options, key, certificate, requests),
  });
  const realm = `http://127.0.0.1:${server.port}/token`;
  return { realm, service, issuer, certificate, requests, stop: () => server.stop(true) };
}

function answer(
  request: Request,
  options: TokenServiceOptions,
  key: KeyObject,
  certificate: string,
  requests: string[],
): Response {
  const url = new URL(request.url);
  const scopes = url.searchParams.getAll("scope");
  const [name = "", password] = userOf(request.headers.get("authorization"));
  requests.push(`${request.method} ${name} ${scopes.join(" ")}`);
  const user = options.users[name];
  if (name !== "" && user?.password !== password) return new Response("{}", { status: 401 });
  const lifeSeconds = options.lifeSeconds ?? 300;
  const token = signedToken(name, scopes, user?.repositories ?? [], lifeSeconds, key, certificate);
  return Response.json({ token, expires_in: lifeSeconds });
}

function userOf(header: string | null): readonly string[] {
  if (header === null) return [];
  const pair = Buffer.from(header.replace(/^Basic /, ""), "base64").toString("utf8");
  return [pair.slice(0, pair.indexOf(":")), pair.slice(pair.indexOf(":") + 1)];
}

/** Grants what of the scopes the user may have, as real services do: fewer than asked is still a token. */
function signedToken(
  subject: string,
  scopes: readonly string[],
  repositories: readonly string[],
  lifeSeconds: number,
  key: KeyObject,
  certificate: string,
): string {
  const access = scopes
    .map((scope) => scope.split(":"))
    .filter(([type, name]) => type === "repository" && repositories.includes(name ?? ""))
    .map(([type, name, actions]) => ({ type, name, actions: (actions ?? "").split(",") }));
  const nowSeconds = Math.floor(Date.now() / 1000);
  const header = { typ: "JWT", alg: "ES256", x5c: [certificate.replace(/-----[^-]+-----|\s/g, "")] };
  const claims = {
    iss: issuer,
    sub: subject,
    aud: service,
    exp: nowSeconds + lifeSeconds,
    nbf: nowSeconds - 10,
    iat: nowSeconds,
    jti: randomUUID(),
    access,
  };
  const signed = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  const signature = sign("sha256", Buffer.from(signed), { key, dsaEncoding: "ieee-p1363" });
  return `${signed}.${signature.toString("base64url")}`;
}

async function keyAndCertificate(): Promise<{ key: KeyObject; certificate: string }> {
  const directory = await mkdtemp(join(tmpdir(), "oci-node-token-"));
  try {
    const [keyPath, certificatePath] = [join(directory, "key.pem"), join(directory, "crt.pem")];
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    await run([
      "openssl",
      "req",
      "-x509",
      ...curve,
      "-subj",
      "/CN=token.test",
      "-keyout",
      keyPath,
      "-out",
      certificatePath,
    ]);
    const key = createPrivateKey(await readFile(keyPath, "utf8"));
    return { key, certificate: await readFile(certificatePath, "utf8") };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
