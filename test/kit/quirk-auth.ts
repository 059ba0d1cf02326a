import type { Answerer, Ask, QuirkNet } from "./quirk-net.ts";
import { QuirkTokens } from "./quirk-tokens.ts";

/** Whether a request may pull from a repository: `undefined` lets it in, else it is answered so. */
export type Gate = (ask: Ask, repository: string) => Response | undefined;

/** What a registry or its token service thinks of a user name and a password. */
export type Verdict = "ok" | "wrong" | "expired" | "locked";

export type Login = (username: string, password: string) => Verdict;

/** An answer in the form of the distribution specification. */
export function registryError(status: number, code: string, message = "", headers = {}): Response {
  return Response.json({ errors: [{ code, message, detail: null }] }, { status, headers });
}

export function basicOf(ask: Ask): readonly [username: string, password: string] | undefined {
  const encoded = /^Basic (.+)$/i.exec(ask.headers.get("authorization") ?? "")?.[1];
  if (encoded === undefined) return undefined;
  const pair = Buffer.from(encoded, "base64").toString("utf8");
  const colon = pair.indexOf(":");
  return [pair.slice(0, colon), pair.slice(colon + 1)];
}

export function bearerOf(ask: Ask): string | undefined {
  return /^Bearer (.+)$/i.exec(ask.headers.get("authorization") ?? "")?.[1];
}

/** Basic credentials with each request, as ECR takes them. An expired one is refused by `expired`. */
export function basicGate(rules: {
  readonly challenge: string;
  readonly login: Login;
  readonly expired: () => Response;
}): Gate {
  return (ask) => {
    const pair = basicOf(ask);
    const verdict = pair === undefined ? "wrong" : rules.login(...pair);
    if (verdict === "ok") return undefined;
    if (verdict === "expired") return rules.expired();
    return new Response("Not Authorized\n", {
      status: 401,
      headers: { "www-authenticate": rules.challenge },
    });
  };
}

export interface BearerRules {
  /** Of the registry's API, where its tokens belong. */
  readonly apiHost: string;
  /** What challenges name. Change {@link BearerAuth.realm} to move it. */
  readonly realm: string;
  readonly service?: string;
  /** What challenges say of the service; default: the truth. */
  readonly challengedService?: string | "none";
  /** In place of `repository:NAME:pull` in challenges. */
  readonly challengedScope?: string;
  readonly login: Login;
  /** Which repositories an account may pull (nobody in particular may pull `public/…`); a scope that it has not is left out, and a token comes all the same. */
  readonly mayPull?: (username: string, repository: string) => boolean;
  readonly lifeSeconds: number;
  /** Whether the answer has `expires_in`. */
  readonly saysLife: boolean;
  readonly form?: "opaque" | "jwt";
  readonly field?: "token" | "access_token";
  /** Reads one `scope` parameter and no more. */
  readonly firstScopeOnly?: boolean;
  /** Bearer values that are no tokens of the service, and good all the same. */
  readonly otherBearer?: (value: string) => boolean;
  /** Who a POST with a refresh token is from; absent: there is no POST. */
  readonly refresh?: (token: string) => string | "expired" | undefined;
  /** The registry's answer to a token that is over; default: 401 with a challenge. */
  readonly expiredToken?: () => Response;
  /** The token service's answer to a wrong password; default: 401. */
  readonly wrongLogin?: () => Response;
  /** The token service's answer to a credential that is over; default: 401. */
  readonly expiredLogin?: () => Response;
}

/** Token authentication (distribution, "Token Authentication Specification") with one registry's habits. */
export class BearerAuth {
  readonly tokens: QuirkTokens;
  realm: string;
  readonly #rules: BearerRules;

  constructor(net: QuirkNet, rules: BearerRules) {
    this.#rules = rules;
    this.realm = rules.realm;
    this.tokens = new QuirkTokens(net, `a token of ${rules.apiHost}`);
  }

  readonly gate: Gate = (ask, repository) => {
    const { otherBearer, expiredToken } = this.#rules;
    const bearer = bearerOf(ask);
    if (bearer === undefined) return this.#challenge(repository, "UNAUTHORIZED");
    if (otherBearer?.(bearer)) return undefined;
    const grant = this.tokens.find(bearer);
    if (grant === "unknown") return this.#challenge(repository, "UNAUTHORIZED", "invalid_token");
    if (grant === "expired")
      return expiredToken?.() ?? this.#challenge(repository, "UNAUTHORIZED", "invalid_token");
    // The API's root is open to whoever could log in.
    if (repository === "" || grant.scopes.includes(`repository:${repository}:pull`)) return undefined;
    return this.#challenge(repository, "DENIED", "insufficient_scope");
  };

  /** The token service, for the realm's host and path. */
  readonly answer: Answerer = (ask) => {
    if (ask.method === "POST") return this.#post(new URLSearchParams(ask.body));
    if (ask.method !== "GET") return new Response("method not allowed", { status: 405 });
    const { service, login } = this.#rules;
    const asked = ask.url.searchParams;
    if (service !== undefined && asked.has("service") && asked.get("service") !== service)
      return Response.json({ details: "unknown service" }, { status: 400 });
    const pair = basicOf(ask);
    const verdict = pair === undefined ? "ok" : login(...pair);
    if (verdict === "wrong")
      return (
        this.#rules.wrongLogin?.() ??
        Response.json({ details: "incorrect username or password" }, { status: 401 })
      );
    if (verdict === "locked")
      return Response.json({ details: "too many failed login attempts" }, { status: 429 });
    if (verdict === "expired")
      return this.#rules.expiredLogin?.() ?? Response.json({ details: "expired" }, { status: 401 });
    const scopes = this.#rules.firstScopeOnly ? asked.getAll("scope").slice(0, 1) : asked.getAll("scope");
    return this.#token(pair?.[0], scopes);
  };

  #post(form: URLSearchParams): Response {
    const { refresh } = this.#rules;
    if (refresh === undefined) return new Response("not found", { status: 404 });
    const username = refresh(form.get("refresh_token") ?? "");
    if (username === undefined || username === "expired" || form.get("grant_type") !== "refresh_token")
      return Response.json({ error: "invalid_grant" }, { status: username === "expired" ? 401 : 400 });
    return this.#token(username, (form.get("scope") ?? "").split(" "));
  }

  #token(username: string | undefined, scopes: readonly string[]): Response {
    const { mayPull, lifeSeconds, saysLife, form = "opaque", field = "token", apiHost } = this.#rules;
    const granted = scopes.filter((scope) => {
      const repository = /^repository:(.+):pull$/.exec(scope)?.[1];
      if (repository === undefined) return false;
      return username === undefined
        ? repository.startsWith("public/")
        : (mayPull?.(username, repository) ?? true);
    });
    const value = this.tokens.issue(username ?? "", granted, { lifeSeconds, form, hosts: [apiHost] });
    return Response.json({ [field]: value, ...(saysLife ? { expires_in: lifeSeconds } : {}) });
  }

  #challenge(repository: string, code: string, error?: string): Response {
    const { service, challengedService = service ?? "none", challengedScope } = this.#rules;
    const scope = challengedScope ?? `repository:${repository}:pull`;
    const parts = [
      `realm="${this.realm}"`,
      ...(challengedService === "none" ? [] : [`service="${challengedService}"`]),
      `scope="${scope}"`,
      ...(error === undefined ? [] : [`error="${error}"`]),
    ];
    return registryError(401, code, "authentication required", {
      "www-authenticate": `Bearer ${parts.join(",")}`,
    });
  }
}

/** Logins of one account that counts the wrong ones: at the limit it is locked for so long, right password or not. */
export function lockingLogin(
  net: QuirkNet,
  account: { readonly username: string; readonly password: string },
  rules: { readonly failuresMax: number; readonly seconds: number },
): Login & { readonly failures: () => number } {
  const failedAtMs: number[] = [];
  const recent = (): number => failedAtMs.filter((at) => at > net.now() - rules.seconds * 1000).length;
  const login = (username: string, password: string): Verdict => {
    if (recent() >= rules.failuresMax) return "locked";
    if (username === account.username && password === account.password) return "ok";
    failedAtMs.push(net.now());
    return "wrong";
  };
  return Object.assign(login, { failures: () => failedAtMs.length });
}
