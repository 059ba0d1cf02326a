import type { Answer } from "./answer.ts";
import { RegistryError, type Where } from "./error.ts";
import { parseRetryAfter } from "./retry.ts";

const errorBodySizeBytesMax = 64 * 1024;

/** What a request was about, for the error that its refusal becomes. */
export interface Subject {
  readonly where: Where;
  /** The image or blob, as users know it: `ghcr.io/acme/app:1`. */
  readonly name: string;
  /** Whether a credential was given for the registry. */
  readonly withCredential: boolean;
}

/**
 * The error of an answer that is not what was asked for. Consumes the body, and takes nothing from it but the
 * distribution specification's error code: its messages are the registry's, not ours.
 */
export async function problemOf(answer: Answer, subject: Subject, nowMs: number): Promise<RegistryError> {
  const code = await errorCode(answer);
  const said = code === undefined ? `${answer.status}` : `${answer.status} ${code}`;
  const { where, name } = subject;
  switch (answer.status) {
    case 401:
      return code === "DENIED" && subject.withCredential ? noPullRight(subject) : badCredential(subject);
    case 403:
      return noPullRight(subject);
    case 404:
      return new RegistryError(
        "not_found",
        `${name} does not exist (${where.registry} answered ${said})`,
        where,
        {
          next: subject.withCredential
            ? "Check the name, the tag and the case; some registries answer so when the credential has no pull right."
            : "Check the name, the tag and the case; a private image needs --creds.",
        },
      );
    case 408:
      return new RegistryError("timeout", `${where.registry} gave up waiting (${said})`, where, {
        next: "Try again.",
      });
    case 429:
      return new RegistryError(
        "rate_limited",
        `${where.registry} limits how often ${name} may be asked for`,
        where,
        {
          retryAfterMs: parseRetryAfter(answer.headers.get("retry-after"), nowMs),
          next: subject.withCredential
            ? "Wait, then try again; the registry's plan sets the limit."
            : "Wait, or pass --creds: registries limit anonymous pulls most.",
        },
      );
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

/** The credential is there and not believed, or is needed and not there. */
export function badCredential({ where, name, withCredential }: Subject): RegistryError {
  return withCredential
    ? new RegistryError("unauthorized", `${where.registry} refuses the credential for ${name}`, where, {
        next: "Check user name and password (or token); it may have been revoked or have expired.",
      })
    : new RegistryError("unauthorized", `${name} needs a credential, or does not exist`, where, {
        next: "Pass --creds with the keys of an account that may pull it, and check the name.",
      });
}

/** The credential is good, its account may not do this. */
export function noPullRight({ where, name, withCredential }: Subject): RegistryError {
  return new RegistryError(
    "denied",
    `${where.registry} does not allow ${withCredential ? "this credential" : "anybody"} to pull ${name}`,
    where,
    {
      next: withCredential
        ? "Give the account the right to pull this repository, or use another account; check the name as well."
        : "Pass --creds with the keys of an account that may pull it.",
    },
  );
}

async function errorCode(answer: Answer): Promise<string | undefined> {
  try {
    const body = JSON.parse(Buffer.from(await answer.bytes(errorBodySizeBytesMax)).toString("utf8")) as {
      errors?: { code?: unknown }[];
    };
    const code = body.errors?.[0]?.code;
    return typeof code === "string" && /^[A-Z][A-Z_]{0,40}$/.test(code) ? code : undefined;
  } catch {
    return undefined;
  }
}
