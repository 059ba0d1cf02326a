import { randomBytes } from "node:crypto";
import { basicGate, registryError } from "./quirk-auth.ts";
import { BlobHost } from "./quirk-blobs.ts";
import { GoogleTokens } from "./quirk-clouds.ts";
import type { Ask, QuirkNet } from "./quirk-net.ts";
import { QuirkRegistry } from "./quirk-registry.ts";
import type { Row } from "./quirk-row.ts";
import { acrRow, googleRow } from "./quirk-rows-cloud.ts";
import type { TokenVerifier } from "./token-verifier.ts";

export const webRole = "arn:aws:iam::111111111111:role/by-token";
export const externalRole = "arn:aws:iam::111111111111:role/by-external-id";
/** Where the keys of the "task" that the node is are served. */
export const taskCredentials = "http://169.254.170.2/v2/credentials/task";
const stsHost = "sts.us-east-1.amazonaws.com";
const ecrApi = "api.ecr.us-east-1.amazonaws.com";
const ecrHost = "111111111111.dkr.ecr.us-east-1.amazonaws.com";
const passwordSeconds = 12 * 3600;

/**
 * An account of AWS with two roles, of which one trusts a workspace's tokens and one the node's own task when it names the
 * workspace's external id; its registry takes passwords that keys of either, or of the task itself, got.
 */
export class TrustingAws {
  /** Of the workspace that {@link externalRole} trusts. */
  externalId = "";
  /** Who asked for passwords: `task`, or the role. */
  readonly askers: string[] = [];
  readonly #net: QuirkNet;
  readonly #verifier: TokenVerifier;
  readonly #registry: QuirkRegistry;
  readonly #keys = new Map<string, string>();
  readonly #passwords = new Map<string, number>();

  constructor(net: QuirkNet, verifier: TokenVerifier) {
    this.#net = net;
    this.#verifier = verifier;
    this.#registry = this.#serveRegistry();
    net.route(stsHost, "/", (ask) => this.#assume(ask));
    net.route(ecrApi, "/", (ask) => this.#password(ask));
    net.route("169.254.170.2", "/v2/credentials/task", () => Response.json(this.#issue("task")));
  }

  row(repository: string, env: Row["env"]): Row {
    const issued = () => this.#passwords.size;
    return { reference: `${ecrHost}/${repository}:1`, env, registry: this.#registry, issued };
  }

  #serveRegistry(): QuirkRegistry {
    const bucket = "prod-us-east-1-starport-layer-bucket.s3.us-east-1.amazonaws.com";
    const blobs = new BlobHost(this.#net, { host: bucket, signing: "aws", lifeSeconds: 3600 });
    const gate = basicGate({
      challenge: `Basic realm="https://${ecrHost}/",service="ecr.amazonaws.com"`,
      login: (username, password) => this.#verdict(username, password),
      expired: () => registryError(403, "DENIED", "Your authorization token has expired."),
    });
    return new QuirkRegistry(this.#net, { apiHost: ecrHost, gate, blobs: { host: blobs, status: 307 } });
  }

  #issue(whose: string) {
    const id = `ASIA${randomBytes(8).toString("hex").toUpperCase()}`;
    const secret = randomBytes(30).toString("base64");
    this.#keys.set(id, whose);
    this.#net.plant(`the secret key of ${whose}`, secret, []);
    const expiration = new Date(Date.now() + 3600_000).toISOString();
    return { AccessKeyId: id, SecretAccessKey: secret, Token: `session-${id}`, Expiration: expiration };
  }

  async #assume(ask: Ask): Promise<Response> {
    const form = new URLSearchParams(ask.body);
    const [action, role] = [form.get("Action") ?? "", form.get("RoleArn")];
    const trusted =
      action === "AssumeRoleWithWebIdentity"
        ? role === webRole &&
          (await this.#verifier.accepts(form.get("WebIdentityToken") ?? "", "sts.amazonaws.com"))
        : role === externalRole && form.get("ExternalId") === this.externalId && this.#asker(ask) === "task";
    if (!trusted) return xml(403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>");
    const keys = this.#issue(role ?? "");
    const fields = Object.entries({ ...keys, SessionToken: keys.Token });
    const inner = fields.map(([name, value]) => `<${name}>${value}</${name}>`).join("");
    const result = `<${action}Result><Credentials>${inner}</Credentials></${action}Result>`;
    return xml(200, `<${action}Response>${result}</${action}Response>`);
  }

  /** Whose keys signed. */
  #asker(ask: Ask): string | undefined {
    const id = /Credential=([^/]+)\//.exec(ask.headers.get("authorization") ?? "")?.[1] ?? "";
    const session = ask.headers.get("x-amz-security-token");
    return session === `session-${id}` ? this.#keys.get(id) : undefined;
  }

  #password(ask: Ask): Response {
    const asker = this.#asker(ask);
    if (asker === undefined) return Response.json({ __type: "UnrecognizedClientException" }, { status: 400 });
    this.askers.push(asker);
    const password = randomBytes(40).toString("base64url");
    this.#net.plant("a password of ECR", password, [ecrHost]);
    this.#passwords.set(password, this.#net.now() + passwordSeconds * 1000);
    const authorizationToken = Buffer.from(`AWS:${password}`).toString("base64");
    const expiresAt = Date.now() / 1000 + passwordSeconds;
    return Response.json({ authorizationData: [{ authorizationToken, expiresAt }] });
  }

  #verdict(username: string, password: string): "ok" | "wrong" | "expired" {
    const endsAtMs = this.#passwords.get(password);
    if (username !== "AWS" || endsAtMs === undefined) return "wrong";
    return this.#net.now() < endsAtMs ? "ok" : "expired";
  }
}

function xml(status: number, body: string): Response {
  return new Response(body, { status, headers: { "content-type": "text/xml" } });
}

/** Entra with an application that trusts a workspace's tokens and knows no secret, and its registry. */
export function trustingAzureRow(net: QuirkNet, verifier: TokenVerifier): Row {
  const row = acrRow(net);
  const { AZURE_CLIENT_ID: clientId = "", AZURE_TENANT_ID: tenant = "" } = row.env;
  net.route("login.microsoftonline.com", `/${tenant}/oauth2/v2.0/token`, async (ask) => {
    const form = new URLSearchParams(ask.body);
    const assertion = form.get("client_assertion") ?? "";
    const mine = form.get("client_id") === clientId && !form.has("client_secret");
    if (!mine || !(await verifier.accepts(assertion, "api://AzureADTokenExchange")))
      return Response.json({ error: "invalid_client", error_codes: [70021] }, { status: 401 });
    const rules = { lifeSeconds: 3599, form: "jwt", hosts: ["acmequirk.azurecr.io"] } as const;
    const access = row.azure.entra.issue(clientId, [], rules);
    return Response.json({ token_type: "Bearer", expires_in: 3599, access_token: access });
  });
  return { ...row, env: { AZURE_CLIENT_ID: clientId, AZURE_TENANT_ID: tenant } };
}

/** A workload identity pool of Google's that trusts a workspace, and a service account that the pool may be. */
export function trustingGoogleRow(net: QuirkNet, verifier: TokenVerifier, pool: string): Row {
  const host = "us-docker.pkg.dev";
  const google = new GoogleTokens(net, [host]);
  const federated = randomBytes(24).toString("hex");
  net.plant("a federated token of Google", federated, ["iamcredentials.googleapis.com"]);
  net.route("sts.googleapis.com", "/v1/token", async (ask) => {
    const token = new URLSearchParams(ask.body).get("subject_token") ?? "";
    if (!(await verifier.accepts(token, `https://iam.googleapis.com/${pool}`)))
      return Response.json({ error: "invalid_grant" }, { status: 400 });
    return Response.json({ access_token: federated, token_type: "Bearer", expires_in: 3600 });
  });
  const account = `/v1/projects/-/serviceAccounts/${GoogleTokens.email}:generateAccessToken`;
  net.route("iamcredentials.googleapis.com", "/", (ask) => {
    const known = ask.headers.get("authorization") === `Bearer ${federated}`;
    if (!known || decodeURIComponent(ask.url.pathname) !== account)
      return Response.json({ error: { code: 403, status: "PERMISSION_DENIED" } }, { status: 403 });
    const expireTime = new Date(Date.now() + 3600_000).toISOString();
    return Response.json({ accessToken: google.accessToken([host]), expireTime });
  });
  return googleRow(net, google, host, {
    GCP_WORKLOAD_IDENTITY_PROVIDER: pool,
    GCP_SERVICE_ACCOUNT: GoogleTokens.email,
  });
}
