import { CredentialError } from "../credential/error.ts";
import type { Answer } from "./answer.ts";
import { RegistryError, type Where } from "./error.ts";
import { describeLimit, type PullLimit, parsePullLimit } from "./pull-limit.ts";
import { parseRetryAfter } from "./retry.ts";

const errorBodySizeBytesMax = 64 * 1024;

/** What a request was about, for the error that its refusal becomes. */
export interface Subject {
  readonly where: Where;
  /** The image or blob, as users know it: `ghcr.io/acme/app:1`. */
  readonly name: string;
  /** Whether a credential was given for the registry. */
  readonly withCredential: boolean;
  /** Of the credential's provider, for when it is refused. */
  readonly advice?: string | undefined;
}

/**
 * The error of an answer that is not what was asked for. Consumes the body, and takes nothing from it but the
 * distribution specification's error code and whether something has ended: its messages are the registry's, not ours.
 *
 * @param limit what the registry said earlier of how often it may be asked
 */
export async function problemOf(
  answer: Answer,
  subject: Subject,
  nowMs: number,
  limit?: PullLimit,
): Promise<RegistryError> {
  const { code, expired } = await saidBy(answer);
  const said = code === undefined ? `${answer.status}` : `${answer.status} ${code}`;
  const { where, name, withCredential } = subject;
  if (expired && withCredential && answer.status < 500) return expiredCredential(subject);
  switch (answer.status) {
    case 401:
      return code === "DENIED" && withCredential ? noPullRight(subject) : badCredential(subject);
    case 403:
      return noPullRight(subject);
    case 404:
      return notFound(subject, said);
    case 408:
      return new RegistryError("timeout", `${where.registry} gave up waiting (${said})`, where, {
        next: "Try again.",
      });
    case 429:
      return rateLimited(answer.headers, subject, nowMs, limit);
    default:
      if (answer.status >= 500) {
        return new RegistryError("unreachable", `${where.registry} failed (${said})`, where, {
          retryAfterMs: parseRetryAfter(answer.headers.get("retry-after"), nowMs),
          next: "The registry has a problem of its own: try again later.",
        });
      }
      return new RegistryError("protocol", `${where.registry} answered ${said} for ${name}`, where, {
        next: "Check that a registry answers at this host.",
      });
  }
}

/** For what fails after a refusal: that there is no other credential says less than the refusal did, which is thrown then. */
export function unlessUnchanged(refusal: RegistryError | undefined): (thrown: unknown) => never {
  return (thrown) => {
    const unchanged = thrown instanceof CredentialError && thrown.code === "unchanged";
    throw unchanged && refusal !== undefined ? refusal : thrown;
  };
}

/** The credential is there and not believed, or is needed and not there. */
export function badCredential({ where, name, withCredential, advice }: Subject): RegistryError {
  const forName = where.repository === "" ? "" : ` for ${name}`;
  return withCredential
    ? new RegistryError("unauthorized", `${where.registry} refuses the credential${forName}`, where, {
        next: advice ?? "Check user name and password (or token); it may have been revoked or have expired.",
      })
    : new RegistryError("unauthorized", `${name} needs a credential, or does not exist`, where, {
        next: "Pass --creds with the keys of an account that may pull it, and check the name.",
      });
}

/** The credential was good, and its time is over. @param end when it says that itself */
export function expiredCredential(
  { where, name }: Subject,
  end?: { readonly endedAtMs: number; readonly nowMs: number },
): RegistryError {
  const ended =
    end === undefined
      ? ""
      : ` (it ended at ${isoSeconds(end.endedAtMs)}, now it is ${isoSeconds(end.nowMs)})`;
  return new RegistryError("expired", `the credential for ${name} has expired${ended}`, where, {
    next:
      `Make a new one for ${where.registry} and give that${end === undefined ? "" : ", and check this machine's clock"}. ` +
      "Tokens that are made from keys here are renewed in time: then it is a clock that is wrong.",
  });
}

/** The credential is good, its account may not do this. Many registries say the same of what does not exist. */
export function noPullRight({ where, name, withCredential }: Subject): RegistryError {
  if (where.repository === "") {
    return new RegistryError("denied", `${where.registry} does not allow this credential to log in`, where, {
      next: "Check the account at the registry: it may be disabled, or may not be meant for its API.",
    });
  }
  return new RegistryError(
    "denied",
    `${where.registry} does not allow ${withCredential ? "this credential" : "anybody"} to pull ${name}, or there is no such image`,
    where,
    {
      next: withCredential
        ? "Give the account the right to pull this repository (a robot account may have expired), or use another; check the name as well."
        : "Pass --creds with the keys of an account that may pull it, and check the name.",
    },
  );
}

function notFound({ where, name, withCredential }: Subject, said: string): RegistryError {
  return new RegistryError(
    "not_found",
    `${name} does not exist (${where.registry} answered ${said})`,
    where,
    {
      next: withCredential
        ? "Check the name, the tag and the case; some registries answer so when the credential has no pull right."
        : "Check the name, the tag and the case; a private image needs --creds.",
    },
  );
}

function rateLimited(
  headers: Headers,
  { where, name, withCredential }: Subject,
  nowMs: number,
  before: PullLimit | undefined,
): RegistryError {
  const limit = parsePullLimit(headers, where.registry) ?? before;
  const known = limit === undefined ? "" : ` (${describeLimit(limit)})`;
  const said = parseRetryAfter(headers.get("retry-after"), nowMs);
  // A window that is used up: some of it is free again at its end at the latest, and nothing by asking once more.
  const windowMs = limit?.remaining === 0 && limit.windowSeconds > 0 ? limit.windowSeconds * 1000 : undefined;
  const retryAfterMs = said ?? windowMs;
  const wait = retryAfterMs === undefined ? "" : describeWait(retryAfterMs);
  const when =
    retryAfterMs === undefined
      ? "Wait, then try again"
      : `Try again at ${isoSeconds(nowMs + retryAfterMs)}${said === undefined ? " at the latest" : ""}, in ${wait}`;
  return new RegistryError(
    "rate_limited",
    `${where.registry} limits how often ${name} may be asked for${known}`,
    where,
    {
      retryAfterMs,
      next: withCredential
        ? `${when}; the account's plan sets the limit.`
        : `${when}, or pass --creds: registries limit anonymous pulls most.`,
    },
  );
}

function isoSeconds(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/\.\d+Z$/, "Z");
}

function describeWait(timeMs: number): string {
  const seconds = Math.ceil(timeMs / 1000);
  return seconds < 120 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`;
}

/** What of an answer's body counts: the specification's error code, and whether it is that something has ended. */
export interface Said {
  readonly code: string | undefined;
  readonly expired: boolean;
}

/** How Amazon ECR says it: with a code that means something else. Recognized, never repeated. */
const expiredText = /\bauthorization token has expired\b/i;

/** Consumes the body. */
export async function saidBy(answer: Answer): Promise<Said> {
  try {
    const body = JSON.parse(Buffer.from(await answer.bytes(errorBodySizeBytesMax)).toString("utf8")) as {
      errors?: { code?: unknown; message?: unknown }[];
      message?: unknown;
    };
    const { code, message = body.message } = body.errors?.[0] ?? {};
    return {
      code: typeof code === "string" && /^[A-Z][A-Z_]{0,40}$/.test(code) ? code : undefined,
      expired: typeof message === "string" && expiredText.test(message),
    };
  } catch {
    return { code: undefined, expired: false };
  }
}
