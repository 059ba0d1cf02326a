import { CodedError, errnoOf } from "../std/error.ts";
import { Redacted } from "../std/redacted.ts";
import { sleep } from "../std/wait.ts";
import { CredentialError } from "./error.ts";
import { askIssuer, type IssuerFetch, issuerTimeoutMs } from "./issuer.ts";

/** Who asks an issuer, and when it is. */
export interface IssuerCall {
  readonly send: IssuerFetch;
  readonly now: () => number;
}

/** One question to an issuer. `who`: its name in errors. */
export interface IssuerQuestion {
  readonly who: string;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Without a body; default: GET. */
  readonly method?: "PUT";
  /** Sent by POST, URL-encoded. */
  readonly form?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  /** Status codes that mean "not just now", beside 408, 429 and 5xx. */
  readonly busy?: readonly number[];
  /** For all attempts together. */
  readonly timeoutMs?: number;
}

/** A definite answer. `json` is `undefined` when the body is no JSON object; `text` is the body, whatever it is. */
export interface IssuerAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly json: Readonly<Record<string, unknown>> | undefined;
  readonly text: string;
}

/** A token with its end, where the issuer names one. */
export interface IssuedToken {
  readonly value: Redacted<string>;
  readonly expiresAt: Date | undefined;
}

const pausesMs = [150, 450];
const tokenLengthMax = 16 * 1024;
const lifeSecondsMax = 7 * 24 * 3600;

/**
 * Asks, twice more when the issuer is away or busy, and gives back what it definitely said.
 *
 * @throws CredentialError `provider_unreachable` when it stays away, `provider_failed` when it redirects or floods
 */
export async function askForJson(call: IssuerCall, question: IssuerQuestion): Promise<IssuerAnswer> {
  const signal = AbortSignal.timeout(question.timeoutMs ?? issuerTimeoutMs);
  for (let attempt = 0; ; attempt += 1) {
    const outcome = await askOnce(call.send, question, signal);
    if (!(outcome instanceof CredentialError)) return outcome;
    const pauseMs = pausesMs[attempt];
    if (outcome.code !== "provider_unreachable" || pauseMs === undefined || signal.aborted) throw outcome;
    await sleep(pauseMs, signal).catch(() => {
      throw outcome;
    });
  }
}

async function askOnce(
  send: IssuerFetch,
  question: IssuerQuestion,
  signal: AbortSignal,
): Promise<IssuerAnswer | CredentialError> {
  const { who } = question;
  const { host } = new URL(question.url);
  const body = bodyOf(question);
  let answer: Awaited<ReturnType<typeof askIssuer>>;
  try {
    answer = await askIssuer(send, question.url, {
      method: question.method ?? (body === undefined ? "GET" : "POST"),
      headers: { Accept: "application/json", ...body?.headers, ...question.headers },
      ...(body === undefined ? {} : { body: body.text }),
      signal,
    });
  } catch (error) {
    return error instanceof CredentialError
      ? error
      : away(host, `${who} (${host}) cannot be reached: ${reasonOf(error, signal)}`);
  }
  const { status, headers } = answer;
  if (status >= 500 || status === 408 || status === 429 || question.busy?.includes(status)) {
    return away(host, `${who} (${host}) gives no answer just now (${status})`);
  }
  if (status >= 300 && status < 400) {
    return new CredentialError("provider_failed", `${who} (${host}) redirects, which it must not`, {
      next: `Check what answers in place of ${host}.`,
    });
  }
  const text = Buffer.from(answer.body).toString("utf8");
  return { status, headers, json: parseObject(text), text };
}

function bodyOf(question: IssuerQuestion): { text: string; headers: Record<string, string> } | undefined {
  if (question.form !== undefined) {
    const headers = { "Content-Type": "application/x-www-form-urlencoded" };
    return { text: new URLSearchParams(question.form).toString(), headers };
  }
  if (question.json === undefined) return undefined;
  return { text: JSON.stringify(question.json), headers: { "Content-Type": "application/json" } };
}

/** Our own errors are fit to be read; of the platform's only the errno is: its messages hold URLs. */
function reasonOf(error: unknown, signal: AbortSignal): string {
  if (signal.aborted || (error instanceof Error && error.name === "TimeoutError")) return "no answer in time";
  if (error instanceof CodedError) return error.message;
  return errnoOf(error) ?? "connection failed";
}

function away(host: string, message: string): CredentialError {
  return new CredentialError("provider_unreachable", message, {
    next: `Check that this machine reaches ${host}, then try again.`,
  });
}

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)
      ? (parsed as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The token in an OAuth 2.0 answer (RFC 6749, section 5.1). Azure's metadata service writes `expires_in` as text.
 *
 * @throws CredentialError `provider_failed` when there is none
 */
export function readToken(call: IssuerCall, who: string, answer: IssuerAnswer): IssuedToken {
  const { access_token: token, expires_in: life } = answer.json ?? {};
  if (answer.status !== 200 || !isToken(token)) throw withoutToken(who);
  const seconds = typeof life === "string" && /^\d{1,9}$/.test(life) ? Number(life) : life;
  const known = typeof seconds === "number" && seconds > 0;
  const lifeMs = known ? Math.min(seconds, lifeSecondsMax) * 1000 : undefined;
  return {
    value: new Redacted(token),
    expiresAt: lifeMs === undefined ? undefined : new Date(call.now() + lifeMs),
  };
}

/** Text that may be a token: printable, of a length that tokens have. */
export function isToken(value: unknown): value is string {
  return typeof value === "string" && value.length <= tokenLengthMax && /^[\x21-\x7e]+$/.test(value);
}

export function withoutToken(who: string): CredentialError {
  return new CredentialError("provider_failed", `${who} answered without a token`, {
    next: `Try again; if it stays so, check what answers in place of ${who}.`,
  });
}

/** A word of an answer (`invalid_grant`, `PERMISSION_DENIED`) that may be repeated; its sentences may not. */
export function wordOf(value: unknown): string | undefined {
  return typeof value === "string" && /^[A-Za-z_]{1,60}$/.test(value) ? value : undefined;
}
