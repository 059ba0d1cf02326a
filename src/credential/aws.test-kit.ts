import { type KeyObject, randomBytes, verify } from "node:crypto";
import { Redacted } from "../std/redacted.ts";
import { checkSignature, type SignatureVerdict } from "./aws-signature.test-kit.ts";
import type { AwsKeys, IssuerFetch } from "./issuer.ts";

/** Who keys belong to and what they may. */
export interface Caller {
  readonly arn: string;
  readonly secret: string;
  readonly sessionToken?: string;
  readonly expiresAtMs?: number;
  /** Of a session: what it was narrowed to. */
  readonly policy?: string;
  /** Whether IAM lets it ask for tokens of ECR; default: yes. */
  readonly mayPull?: boolean;
}

/** A role's trust policy, in short. */
export interface Trust {
  readonly principals?: readonly string[];
  readonly externalId?: string;
  readonly webIdentity?: { readonly issuer: string; readonly subject: string; readonly audience: string };
}

export interface AwsCallSeen {
  readonly action: string;
  /** Host name that was asked. */
  readonly host: string;
  readonly caller?: string;
  readonly form?: URLSearchParams;
}

/**
 * ECR, ECR Public and STS, as strict as the real ones where moto is not: each signature is checked for the host that was
 * asked, keys and sessions end, a role is assumed only as its trust policy says, a token of an issuer must be one.
 */
export class FakeAws {
  readonly callers = new Map<string, Caller>();
  readonly roles = new Map<string, Trust>();
  readonly issuers = new Map<string, KeyObject>();
  readonly seen: AwsCallSeen[] = [];
  /** By which tokens and sessions end; may be virtual. */
  now: () => number = Date.now;
  /** By which signatures and tokens of issuers are judged: who made them has the machine's clock. */
  clock: () => number = Date.now;
  tokenLifeMs = 12 * 3600_000;
  /** In place of an answer, for services that fail. */
  instead: ((action: string) => Response | Promise<Response> | undefined) | undefined;
  /** Passwords that were given out: to whom, and when they are over. */
  readonly passwords = new Map<string, { readonly caller: Caller; readonly endsAtMs: number }>();
  readonly #server: Bun.Server<undefined>;

  constructor() {
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#answer(request) });
  }

  /** Where it listens. */
  get origin(): string {
    return this.#server.url.origin;
  }

  /** Asks this server for whatever host, under that host's name. */
  readonly fetch: IssuerFetch = (url, init) => {
    const { host, pathname, search } = new URL(url);
    const headers = new Headers(init.headers);
    headers.set("Host", host);
    return fetch(`${this.origin}${pathname}${search}`, { ...init, headers });
  };

  /** New keys of somebody. */
  keysOf(arn: string, more: Partial<Caller> = {}): AwsKeys {
    const accessKeyId = `${more.sessionToken === undefined ? "AKIA" : "ASIA"}${randomBytes(8).toString("hex").toUpperCase()}`;
    const secret = randomBytes(20).toString("hex");
    this.callers.set(accessKeyId, { arn, secret, ...more });
    return {
      accessKeyId,
      secretAccessKey: new Redacted(secret),
      ...(more.sessionToken === undefined ? {} : { sessionToken: new Redacted(more.sessionToken) }),
      ...(more.expiresAtMs === undefined ? {} : { expiresAt: new Date(more.expiresAtMs) }),
    };
  }

  /** Keys that live for some time only. */
  sessionKeysOf(arn: string, lifeMs = 3600_000, more: Partial<Caller> = {}): AwsKeys {
    const sessionToken = randomBytes(30).toString("base64");
    return this.keysOf(arn, { sessionToken, expiresAtMs: this.now() + lifeMs, ...more });
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const body = Buffer.from(await request.arrayBuffer());
    const host = request.headers.get("host") ?? "";
    const target = request.headers.get("x-amz-target");
    const form = target === null ? new URLSearchParams(body.toString()) : undefined;
    const action = target?.split(".").at(-1) ?? form?.get("Action") ?? "";
    const refuse = form === undefined ? jsonError : xmlError;
    const place = placeOf(host);
    if (place === undefined) return refuse(400, "InvalidAction", `no such host ${host}`);
    const instead = await this.instead?.(action);
    if (action === "AssumeRoleWithWebIdentity" && form !== undefined) {
      this.seen.push({ action, host, form });
      return instead ?? this.#assumeWithToken(form, request.headers.has("authorization"));
    }
    const signed = { method: request.method, url: new URL(request.url), headers: request.headers, body };
    const verdict = checkSignature(signed, place, (id) => this.callers.get(id), this.clock());
    const caller = verdict.ok ? this.callers.get(verdict.accessKeyId) : undefined;
    this.seen.push({
      action,
      host,
      ...(caller === undefined ? {} : { caller: caller.arn }),
      ...(form === undefined ? {} : { form }),
    });
    if (instead !== undefined) return instead;
    if (!verdict.ok || caller === undefined) return refuse(...problemOf(verdict, form !== undefined));
    if (caller.expiresAtMs !== undefined && caller.expiresAtMs <= this.now()) {
      const code = form === undefined ? "ExpiredTokenException" : "ExpiredToken";
      return refuse(403, code, "The security token included in the request is expired");
    }
    if (action === "GetAuthorizationToken") return this.#token(caller, place.service);
    if (action === "AssumeRole" && form !== undefined) return this.#assume(form, caller);
    if (action === "GetCallerIdentity") return xml(action, `<Arn>${caller.arn}</Arn>`);
    return refuse(400, "InvalidAction", action);
  }

  #token(caller: Caller, service: string): Response {
    if (caller.mayPull === false) {
      return jsonError(400, "AccessDeniedException", `User: ${caller.arn} is not authorized to perform that`);
    }
    const password = `token-${this.passwords.size + 1}`;
    const endsAtMs = this.now() + this.tokenLifeMs;
    this.passwords.set(password, { caller, endsAtMs });
    const data = {
      authorizationToken: Buffer.from(`AWS:${password}`).toString("base64"),
      expiresAt: endsAtMs / 1000,
    };
    return Response.json({ authorizationData: service === "ecr-public" ? data : [data] });
  }

  #assume(form: URLSearchParams, caller: Caller): Response {
    const arn = form.get("RoleArn") ?? "";
    const trust = this.roles.get(arn);
    const trusted = trust?.principals?.some((principal) => caller.arn.startsWith(principal)) === true;
    if (!trusted || (form.get("ExternalId") ?? undefined) !== trust?.externalId) {
      const text = `User: ${caller.arn} is not authorized to perform: sts:AssumeRole on resource: ${arn}`;
      return xmlError(403, "AccessDenied", text);
    }
    return this.#session(form);
  }

  #assumeWithToken(form: URLSearchParams, signed: boolean): Response {
    if (signed) return xmlError(400, "InvalidAction", "this call is not signed");
    const trust = this.roles.get(form.get("RoleArn") ?? "")?.webIdentity;
    const [head = "", payload = "", signature = ""] = (form.get("WebIdentityToken") ?? "").split(".");
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as Record<string, unknown>;
    const key = this.issuers.get(String(claims["iss"]));
    if (key === undefined) return xmlError(400, "InvalidIdentityToken", "No OpenIDConnect provider found");
    const data = Buffer.from(`${head}.${payload}`);
    if (!verify("sha256", data, key, Buffer.from(signature, "base64url"))) {
      return xmlError(400, "InvalidIdentityToken", "Couldn't verify the signature");
    }
    if (Number(claims["exp"]) * 1000 <= this.clock()) {
      return xmlError(400, "ExpiredTokenException", "Token expired");
    }
    const fits =
      claims["iss"] === trust?.issuer &&
      claims["sub"] === trust?.subject &&
      [claims["aud"]].flat()[0] === trust?.audience;
    return fits ? this.#session(form) : xmlError(403, "AccessDenied", "Not authorized");
  }

  #session(form: URLSearchParams): Response {
    const role = form.get("RoleArn") ?? "";
    const name = form.get("RoleSessionName") ?? "";
    if (!/^[\w+=,.@-]{2,64}$/.test(name)) return xmlError(400, "ValidationError", "RoleSessionName");
    const lifeMs = Number(form.get("DurationSeconds")) * 1000;
    const [, account] = /^arn:[\w-]+:iam::(\d+):/.exec(role) ?? [];
    const arn = `arn:aws:sts::${account}:assumed-role/${role.split("/").at(-1)}/${name}`;
    const policy = form.get("Policy");
    const keys = this.sessionKeysOf(arn, lifeMs, policy === null ? {} : { policy });
    return xml(
      form.get("Action") ?? "",
      `<Credentials><AccessKeyId>${keys.accessKeyId}</AccessKeyId><SecretAccessKey>${keys.secretAccessKey.expose()}</SecretAccessKey>` +
        `<SessionToken>${keys.sessionToken?.expose()}</SessionToken><Expiration>${keys.expiresAt?.toISOString()}</Expiration></Credentials>`,
    );
  }
}

/** Region and service by the host's name, for signatures are bound to both. */
function placeOf(host: string): { readonly region: string; readonly service: string } | undefined {
  const [, service = "", region = ""] =
    /^(?:api\.)?(ecr-public|ecr|sts)(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|api\.aws)$/.exec(
      host,
    ) ?? [];
  return service === "" ? undefined : { region, service };
}

function problemOf(
  verdict: SignatureVerdict,
  query: boolean,
): readonly [status: number, code: string, message: string] {
  const problem = verdict.ok ? "unknown_key" : verdict.problem;
  const wrong = query ? "SignatureDoesNotMatch" : "InvalidSignatureException";
  const unknown = query ? "InvalidClientTokenId" : "UnrecognizedClientException";
  if (problem === "late") return [403, wrong, "Signature expired: 20260101T000000Z is now earlier than …"];
  if (problem === "early") return [403, wrong, "Signature not yet current: 20260101T000000Z is still later"];
  if (problem === "unknown_key" || problem === "session_token") return [403, unknown, "invalid"];
  if (problem === "missing") return [403, "MissingAuthenticationToken", "missing"];
  return [403, wrong, "The request signature we calculated does not match: canonical string …"];
}

function jsonError(status: number, code: string, message: string): Response {
  const headers = { "Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": code };
  return new Response(JSON.stringify({ __type: code, message }), { status, headers });
}

function xmlError(status: number, code: string, message: string): Response {
  const error = `<Error><Type>Sender</Type><Code>${code}</Code><Message>${message}</Message></Error>`;
  const text = `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">${error}<RequestId>r</RequestId></ErrorResponse>`;
  return new Response(text, { status, headers: { "Content-Type": "text/xml" } });
}

function xml(action: string, result: string): Response {
  const text =
    `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result>${result}</${action}Result>` +
    `<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></${action}Response>`;
  return new Response(text, { headers: { "Content-Type": "text/xml" } });
}
