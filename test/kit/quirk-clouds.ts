import { createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import type { Moto } from "./moto.ts";
import type { Ask, QuirkNet } from "./quirk-net.ts";
import { QuirkTokens } from "./quirk-tokens.ts";

/** Passwords that `GetAuthorizationToken` gave out, and when they are over on the clock of the net. */
export class EcrPasswords {
  readonly #net: QuirkNet;
  readonly #endsAtMs = new Map<string, number>();
  static readonly lifeSeconds = 12 * 3600;
  #lifeMs = EcrPasswords.lifeSeconds * 1000;

  constructor(net: QuirkNet) {
    this.#net = net;
  }

  get count(): number {
    return this.#endsAtMs.size;
  }

  /** From now on, what is given out is over at once, as for a registry whose clock is wrong by half a day. */
  endAll(): void {
    this.#lifeMs = 0;
  }

  verdict(username: string, password: string): "ok" | "wrong" | "expired" {
    const endsAtMs = this.#endsAtMs.get(password);
    if (username !== "AWS" || endsAtMs === undefined) return "wrong";
    return this.#net.now() < endsAtMs ? "ok" : "expired";
  }

  /** An API of AWS at this host, which moto answers; its passwords may be seen at the registry alone. */
  serve(host: string, moto: Moto, registry: string): void {
    this.#net.route(host, "/", async (ask) => {
      const answer = await passOn(ask, moto.host);
      const text = await answer.text();
      if (answer.ok && ask.headers.get("x-amz-target")?.endsWith(".GetAuthorizationToken"))
        this.#note(text, registry);
      const type = answer.headers.get("content-type") ?? "application/json";
      return new Response(text, { status: answer.status, headers: { "content-type": type } });
    });
  }

  #note(text: string, registry: string): void {
    const { authorizationData } = JSON.parse(text) as { authorizationData: unknown };
    const [data] = [authorizationData].flat() as { authorizationToken: string }[];
    const pair = Buffer.from(data?.authorizationToken ?? "", "base64").toString();
    const password = pair.slice(pair.indexOf(":") + 1);
    this.#endsAtMs.set(password, this.#net.now() + this.#lifeMs);
    this.#net.plant("a password of ECR", password, [registry]);
  }
}

/** Sends a request on to a server on loopback as it came. */
export function passOn(ask: Ask, host: string): Promise<Response> {
  const headers = new Headers(ask.headers);
  for (const name of ["host", "content-length", "connection"]) headers.delete(name);
  headers.set("accept-encoding", "identity");
  return fetch(`http://${host}${ask.url.pathname}${ask.url.search}`, {
    method: ask.method,
    headers,
    redirect: "manual",
    ...(ask.body === "" ? {} : { body: ask.body }),
  });
}

/** Google's token endpoint for service accounts: a signed assertion in, an access token of an hour out. */
export class GoogleTokens {
  readonly tokens: QuirkTokens;
  static readonly email = "puller@acme.iam.gserviceaccount.com";
  readonly #pair = generateKeyPairSync("rsa", { modulusLength: 2048 });

  constructor(net: QuirkNet, registries: readonly string[]) {
    this.tokens = new QuirkTokens(net, "an access token of Google");
    net.plant("a Google private key", this.privateKey.split("\n")[2] ?? "", []);
    net.route("oauth2.googleapis.com", "/token", (ask) => this.#answer(ask, registries));
  }

  get privateKey(): string {
    return this.#pair.privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  }

  /** The JSON that the console gives for the key. */
  get keyFile(): string {
    return JSON.stringify({
      type: "service_account",
      project_id: "acme",
      private_key_id: "k1",
      private_key: this.privateKey,
      client_email: GoogleTokens.email,
      token_uri: "https://oauth2.googleapis.com/token",
    });
  }

  /** An access token as `gcloud auth print-access-token` gives it. */
  accessToken(registries: readonly string[]): string {
    return this.tokens.issue(GoogleTokens.email, [], {
      lifeSeconds: 3600,
      form: "opaque",
      hosts: registries,
    });
  }

  login(username: string, password: string): "ok" | "wrong" | "expired" {
    if (username === "_json_key_base64")
      return this.login("_json_key", Buffer.from(password, "base64").toString("utf8"));
    if (username === "_json_key") return isKeyOf(GoogleTokens.email, password) ? "ok" : "wrong";
    if (username !== "oauth2accesstoken") return "wrong";
    const grant = this.tokens.find(password);
    return grant === "expired" ? "expired" : grant === "unknown" ? "wrong" : "ok";
  }

  #answer(ask: Ask, registries: readonly string[]): Response {
    const asked = ask.headers.get("content-type")?.includes("json")
      ? new Map(Object.entries(JSON.parse(ask.body) as Record<string, string>))
      : new URLSearchParams(ask.body);
    const assertion = asked.get("assertion") ?? "";
    const [head = "", payload = "", signature = ""] = assertion.split(".");
    const key = createPublicKey(this.#pair.privateKey);
    const signed = verify(
      "sha256",
      Buffer.from(`${head}.${payload}`),
      key,
      Buffer.from(signature, "base64url"),
    );
    const claims = signed ? JSON.parse(Buffer.from(payload, "base64url").toString()) : {};
    if (
      claims.iss !== GoogleTokens.email ||
      !String(claims.aud).startsWith("https://oauth2.googleapis.com/token")
    )
      return Response.json({ error: "invalid_grant" }, { status: 400 });
    return Response.json({
      access_token: this.accessToken(registries),
      expires_in: 3600,
      token_type: "Bearer",
    });
  }
}

function isKeyOf(email: string, json: string): boolean {
  try {
    return JSON.parse(json).client_email === email;
  } catch {
    return false;
  }
}

export interface EntraApp {
  readonly tenant: string;
  readonly clientId: string;
  readonly secret: string;
}

/** Entra's token endpoint for one application, and the exchange of an Azure registry that believes its tokens. */
export class AzureTokens {
  readonly entra: QuirkTokens;
  readonly refresh: QuirkTokens;
  static readonly refreshSeconds = 3 * 3600;

  constructor(net: QuirkNet, app: EntraApp, registry: string) {
    this.entra = new QuirkTokens(net, "an access token of Entra");
    this.refresh = new QuirkTokens(net, "a refresh token of ACR");
    net.plant("the client secret", app.secret, ["login.microsoftonline.com"]);
    net.route("login.microsoftonline.com", `/${app.tenant}/oauth2/v2.0/token`, (ask) => {
      const form = new URLSearchParams(ask.body);
      const known = form.get("client_id") === app.clientId && form.get("client_secret") === app.secret;
      if (form.get("grant_type") !== "client_credentials" || !known)
        return Response.json({ error: "invalid_client", error_codes: [7000215] }, { status: 401 });
      const access = this.entra.issue(app.clientId, [], {
        lifeSeconds: 3599,
        form: "jwt",
        hosts: [registry],
      });
      return Response.json({ token_type: "Bearer", expires_in: 3599, access_token: access });
    });
    net.route(registry, "/oauth2/exchange", (ask) => {
      const form = new URLSearchParams(ask.body);
      const access = this.entra.find(form.get("access_token") ?? "");
      const good = form.get("grant_type") === "access_token" && form.get("service") === registry;
      if (!good || typeof access === "string")
        return Response.json({ errors: [{ code: "UNAUTHORIZED" }] }, { status: 401 });
      const rules = { lifeSeconds: AzureTokens.refreshSeconds, form: "jwt", hosts: [registry] } as const;
      return Response.json({ refresh_token: this.refresh.issue(app.clientId, [], rules) });
    });
  }
}
