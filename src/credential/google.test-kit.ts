import { type CloudRequest, FakeCloud, Signer, verifiedClaims } from "./cloud.test-kit.ts";

const tokenUrl = "https://oauth2.googleapis.com/token";
const cloudPlatform = "https://www.googleapis.com/auth/cloud-platform";

const accountKey = new Signer();
const issuerKey = new Signer();
export const projectPool = "projects/123456/locations/global/workloadIdentityPools/nodes";
export const poolProvider = `${projectPool}/providers/oci-node`;
export const keyAccount = "ci@acme.iam.gserviceaccount.com";
export const pullAccount = "pull@acme.iam.gserviceaccount.com";
export const machineAccount = "123-compute@developer.gserviceaccount.com";

/** Google as far as tokens go, on a clock of its own. It checks what it is sent and answers as Google does. */
export class FakeGoogle {
  nowMs = Date.UTC(2026, 0, 1);
  readonly accountKey = accountKey;
  readonly issuer = issuerKey;
  /** Who is which access token. */
  readonly tokens = new Map<string, string>();
  readonly #ends = new Map<string, number>();
  /** Service accounts that do not sign in. */
  readonly disabled = new Set<string>();
  /** `WHO ACCOUNT`: may act for it. */
  readonly grants = new Set<string>();
  /** What the pool's provider is set to believe. */
  readonly believed = {
    issuer: "https://node.acme.com",
    audience: `https://iam.googleapis.com/${poolProvider}`,
    subject: "*",
  };
  apiEnabled = true;
  lifeSeconds = 3600;
  machineHasAccount = true;
  readonly cloud = new FakeCloud({
    "https://oauth2.googleapis.com": (request) => this.#signIn(request),
    "https://sts.googleapis.com": (request) => this.#exchange(request),
    "https://iamcredentials.googleapis.com": (request) => this.#impersonate(request),
    "http://metadata.google.internal": (request) => this.#metadata(request),
  });

  readonly now = (): number => this.nowMs;

  /** The key file of {@link keyAccount}, as Google writes it: over several lines. */
  keyFile(changes: Record<string, unknown> = {}): string {
    const file = {
      type: "service_account",
      project_id: "acme",
      private_key_id: "key-1",
      private_key: this.accountKey.pem,
      client_email: keyAccount,
      token_uri: tokenUrl,
      universe_domain: "googleapis.com",
      ...changes,
    };
    return JSON.stringify(file, undefined, 2);
  }

  /** What the node signs for a workspace. */
  subjectToken(audience: string, changes: Record<string, unknown> = {}): string {
    const iat = Math.floor(this.nowMs / 1000);
    const iss = this.believed.issuer;
    return this.issuer.jwt({ iss, sub: "workspace:default", aud: audience, iat, exp: iat + 600, ...changes });
  }

  /** Whose access token it is, as long as it lives. */
  whoIs(token: string): string | undefined {
    return this.nowMs < (this.#ends.get(token) ?? 0) ? this.tokens.get(token) : undefined;
  }

  #give(who: string): string {
    const token = `ya29.${this.tokens.size + 1}`;
    this.tokens.set(token, who);
    this.#ends.set(token, this.nowMs + this.lifeSeconds * 1000);
    return token;
  }

  #oauth(who: string): Response {
    return Response.json({
      access_token: this.#give(who),
      expires_in: this.lifeSeconds,
      token_type: "Bearer",
    });
  }

  #signIn(request: CloudRequest): Response {
    const form = new URLSearchParams(request.body);
    if (
      request.path !== "/token" ||
      form.get("grant_type") !== "urn:ietf:params:oauth:grant-type:jwt-bearer"
    ) {
      return refuse("unsupported_grant_type", "Invalid grant_type");
    }
    const claims = verifiedClaims(form.get("assertion") ?? "", this.accountKey.publicKey);
    if (claims === undefined) return refuse("invalid_grant", "Invalid JWT Signature.");
    const nowSeconds = this.nowMs / 1000;
    const [iat, exp] = [Number(claims["iat"]), Number(claims["exp"])];
    if (!(iat <= nowSeconds + 300 && exp > nowSeconds && exp - iat <= 3600)) {
      const said =
        "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.";
      return refuse("invalid_grant", said);
    }
    if (claims["aud"] !== tokenUrl) return refuse("invalid_grant", "Invalid JWT: Failed audience check.");
    if (claims["scope"] !== cloudPlatform) return refuse("invalid_scope", "Invalid OAuth scope.");
    if (claims["iss"] !== keyAccount) return refuse("invalid_grant", "Invalid grant: account not found");
    if (this.disabled.has(keyAccount)) return refuse("invalid_grant", "Robot is disabled.");
    return this.#oauth(keyAccount);
  }

  #exchange(request: CloudRequest): Response {
    const form = Object.fromEntries(new URLSearchParams(request.body));
    const { subject_token: subjectToken = "", audience, ...rest } = form;
    const wanted = {
      grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
      scope: cloudPlatform,
      requested_token_type: "urn:ietf:params:oauth:token-type:access_token",
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
    };
    if (request.path !== "/v1/token" || !Bun.deepEquals(rest, wanted)) {
      return refuse("invalid_request", "Request contains an invalid argument.");
    }
    if (audience !== `//iam.googleapis.com/${poolProvider}`) {
      return refuse("invalid_target", "The target service indicated by the audience parameters is invalid.");
    }
    const claims = verifiedClaims(subjectToken, this.issuer.publicKey);
    if (claims === undefined) return refuse("invalid_grant", "Invalid ID Token signature.");
    if (claims["iss"] !== this.believed.issuer) return refuse("invalid_grant", "The issuer does not match.");
    if (claims["aud"] !== this.believed.audience)
      return refuse("invalid_grant", "The audience does not match.");
    if (Number(claims["exp"]) <= this.nowMs / 1000) return refuse("invalid_grant", "ID Token is stale.");
    const subject = String(claims["sub"]);
    if (![subject, "*"].includes(this.believed.subject)) {
      return refuse("unauthorized_client", "The given credential is rejected by the attribute condition.");
    }
    return this.#oauth(`principal://iam.googleapis.com/${projectPool}/subject/${subject}`);
  }

  #impersonate(request: CloudRequest): Response {
    const account = /^\/v1\/projects\/-\/serviceAccounts\/([^/:]+):generateAccessToken$/.exec(
      request.path,
    )?.[1];
    const who = this.whoIs((request.headers.get("authorization") ?? "").replace(/^Bearer /, ""));
    if (who === undefined) return googleError(401, "UNAUTHENTICATED", "CREDENTIALS_MISSING");
    if (account === undefined) return googleError(404, "NOT_FOUND");
    if (!this.apiEnabled) return googleError(403, "PERMISSION_DENIED", "SERVICE_DISABLED");
    if (!this.grants.has(`${who} ${account}`)) {
      return googleError(403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    }
    if (this.disabled.has(account)) return googleError(400, "FAILED_PRECONDITION");
    const { scope, lifetime } = JSON.parse(request.body) as { scope: string[]; lifetime: string };
    const seconds = Number(/^(\d+)s$/.exec(lifetime)?.[1]);
    if (scope[0] !== cloudPlatform || !(seconds > 0 && seconds <= 3600))
      return googleError(400, "INVALID_ARGUMENT");
    const expireTime = new Date(this.nowMs + seconds * 1000).toISOString().replace(/\.\d+Z$/, "Z");
    return Response.json({ accessToken: this.#give(account), expireTime });
  }

  #metadata(request: CloudRequest): Response {
    const headers = { "Metadata-Flavor": "Google" };
    if (request.headers.get("metadata-flavor") !== "Google")
      return new Response("missing header", { status: 403 });
    const path = "/computeMetadata/v1/instance/service-accounts/default/token";
    if (request.path !== path || !this.machineHasAccount)
      return new Response("not found", { status: 404, headers });
    if (request.query.get("scopes") !== cloudPlatform)
      return new Response("scopes", { status: 400, headers });
    const body = {
      access_token: this.#give(machineAccount),
      expires_in: this.lifeSeconds,
      token_type: "Bearer",
    };
    return Response.json(body, { headers });
  }
}

function refuse(error: string, description: string): Response {
  const status = error === "unauthorized_client" ? 401 : 400;
  return Response.json({ error, error_description: `${description} planted-description` }, { status });
}

function googleError(code: number, status: string, reason?: string): Response {
  const details =
    reason === undefined ? [] : [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason }];
  return Response.json(
    { error: { code, status, message: "planted-description", details } },
    { status: code },
  );
}
