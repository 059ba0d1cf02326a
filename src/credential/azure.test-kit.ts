import { type CloudRequest, FakeCloud, Signer, verifiedClaims } from "./cloud.test-kit.ts";

const issuerKey = new Signer();
const registryKey = new Signer();

export const registry = "acme.azurecr.io";
export const tenant = "22222222-3333-4444-5555-666666666666";
export const domain = "acme.onmicrosoft.com";
export const application = "11111111-2222-3333-4444-555555555555";
export const managedId = "77777777-2222-3333-4444-555555555555";
export const secret = "hunter2~value";
const resource = "https://containerregistry.azure.net";

/** Entra, a registry and a machine's metadata service, on a clock of their own; they check what they are sent. */
export class FakeAzure {
  nowMs = Date.UTC(2026, 0, 1);
  readonly issuer = issuerKey;
  /** The application's federated credential. */
  readonly believed = {
    issuer: "https://node.acme.com",
    subject: "workspace:blue",
    audience: "api://AzureADTokenExchange",
  };
  /** Of the application: everything that can be wrong with it. */
  secretExpired = false;
  enabled = true;
  /** Who the registry lets in. */
  readonly admitted = new Set([application, managedId]);
  networkRules = false;
  registryTenants: readonly (string | null)[] = [tenant, domain];
  refreshLifeSeconds = 3 * 3600;
  machineIdentities: readonly string[] = [managedId];
  /** How often the metadata service is still being updated. */
  updating = 0;
  /** Who is which token, of Entra and of the registry. */
  readonly tokens = new Map<string, string>();
  readonly cloud = new FakeCloud({
    "https://login.microsoftonline.com": (request) => this.#signIn(request),
    "https://login.chinacloudapi.cn": (request) => this.#signIn(request),
    "https://login.microsoftonline.us": (request) => this.#signIn(request),
    [`https://${registry}`]: (request) => this.#exchange(request),
    "https://acme.azurecr.cn": (request) => this.#exchange(request),
    "https://acme.azurecr.us": (request) => this.#exchange(request),
    "http://169.254.169.254": (request) => this.#metadata(request),
  });

  readonly now = (): number => this.nowMs;

  /** What the node signs for a workspace, or Kubernetes for a pod. */
  assertion(audience: string, claims: Record<string, unknown> = {}): string {
    const iat = Math.floor(this.nowMs / 1000);
    const { issuer: iss, subject: sub } = this.believed;
    return this.issuer.jwt({ iss, sub, aud: audience, iat, exp: iat + 600, ...claims });
  }

  /** Whose refresh token of the registry it is, as long as it lives. */
  whoIs(refreshToken: string): string | undefined {
    const claims = verifiedClaims(refreshToken, registryKey.publicKey);
    return Number(claims?.["exp"]) * 1000 > this.nowMs ? String(claims?.["sub"]) : undefined;
  }

  #give(who: string): string {
    const token = `aad0.${this.tokens.size + 1}`;
    this.tokens.set(token, who);
    return token;
  }

  #signIn(request: CloudRequest): Response {
    const [, named = "", ...rest] = request.path.split("/");
    if (rest.join("/") !== "oauth2/v2.0/token" || request.method !== "POST")
      return new Response("", { status: 404 });
    if (named !== tenant && named !== domain) return entraError(400, 90002, "invalid_request");
    const form = Object.fromEntries(new URLSearchParams(request.body));
    if (form["grant_type"] !== "client_credentials") return entraError(400, 70003, "unsupported_grant_type");
    if (form["scope"] !== `${resource}/.default`) return entraError(400, 70011, "invalid_scope");
    if (form["client_id"] !== application) return entraError(400, 700016, "unauthorized_client");
    if (!this.enabled) return entraError(401, 7000112, "unauthorized_client");
    const refused =
      form["client_secret"] === undefined ? this.#checkAssertion(form) : this.#checkSecret(form);
    if (refused !== undefined) return entraError(401, refused, "invalid_client");
    return Response.json({ token_type: "Bearer", expires_in: 3599, access_token: this.#give(application) });
  }

  #checkSecret(form: Record<string, string>): number | undefined {
    if (form["client_secret"] !== secret) return 7000215;
    return this.secretExpired ? 7000222 : undefined;
  }

  #checkAssertion(form: Record<string, string>): number | undefined {
    if (form["client_assertion_type"] !== "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
      return 7000218;
    const claims = verifiedClaims(form["client_assertion"] ?? "", this.issuer.publicKey);
    if (claims === undefined) return 50013;
    if (claims["iss"] !== this.believed.issuer) return 700211;
    if (claims["aud"] !== this.believed.audience) return 700212;
    if (claims["sub"] !== this.believed.subject) return 700213;
    const nowSeconds = this.nowMs / 1000;
    return Number(claims["exp"]) > nowSeconds && Number(claims["iat"]) <= nowSeconds + 300
      ? undefined
      : 700024;
  }

  #exchange(request: CloudRequest): Response {
    if (request.path !== "/oauth2/exchange" || request.method !== "POST")
      return new Response("", { status: 404 });
    const form = new URLSearchParams(request.body);
    const who = this.tokens.get(form.get("access_token") ?? "");
    const asked = form.get("grant_type") === "access_token" && form.get("service") === request.host;
    if (!asked) return registryError(400, "UNSUPPORTED");
    if (this.networkRules) return registryError(403, "DENIED");
    if (who === undefined || !this.admitted.has(who)) return registryError(401, "UNAUTHORIZED");
    if (!this.registryTenants.includes(form.get("tenant"))) return registryError(401, "UNAUTHORIZED");
    const iat = Math.floor(this.nowMs / 1000);
    const claims = { sub: who, iat, exp: iat + this.refreshLifeSeconds, jti: `${this.tokens.size}` };
    const token = registryKey.jwt({ iss: "Azure Container Registry", aud: request.host, ...claims });
    this.tokens.set(token, `${who} at ${request.host}`);
    return Response.json({ refresh_token: token });
  }

  #metadata(request: CloudRequest): Response {
    if (request.headers.get("metadata") !== "true" || request.headers.has("x-forwarded-for")) {
      return imdsError("invalid_request", "Required metadata header not specified");
    }
    if (request.path !== "/metadata/identity/oauth2/token") return new Response("", { status: 404 });
    if (this.updating > 0) {
      this.updating -= 1;
      return new Response("", { status: 410 });
    }
    const { query } = request;
    if (query.get("api-version") !== "2018-02-01") return imdsError("bad_request_102", "Required parameter");
    if (query.get("resource") !== resource) return imdsError("invalid_resource", "AADSTS50001");
    const wanted = query.get("client_id");
    const [only, another] = this.machineIdentities;
    const who =
      wanted === null && another === undefined ? only : this.machineIdentities.find((id) => id === wanted);
    if (who === undefined) return imdsError("invalid_request", "Identity not found");
    const expires_on = String(Math.floor(this.nowMs / 1000) + 86_399);
    const life = { expires_in: "86399", expires_on, not_before: "0" };
    return Response.json({ access_token: this.#give(who), ...life, resource, token_type: "Bearer" });
  }
}

function entraError(status: number, number: number, error: string): Response {
  const error_description = `AADSTS${number}: planted-description. Trace ID: 1`;
  return Response.json({ error, error_description, error_codes: [number] }, { status });
}

function registryError(status: number, code: string): Response {
  return Response.json({ errors: [{ code, message: "planted-description" }] }, { status });
}

function imdsError(error: string, description: string): Response {
  return Response.json({ error, error_description: `${description} planted-description` }, { status: 400 });
}
