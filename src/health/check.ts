import { createProvider } from "../credential/create-provider.ts";
import { CredentialError } from "../credential/error.ts";
import type { ProvidersOf } from "../credential/issuer.ts";
import type { CredentialProvider, RegistryCredential } from "../credential/provider.ts";
import { endOf } from "../registry/authorization.ts";
import type { RegistryClient } from "../registry/client.ts";
import { isRefusal, RegistryError } from "../registry/error.ts";
import type { CredentialRights } from "../registry/rights.ts";
import { SecretError } from "../secret/error.ts";
import { CodedError } from "../std/error.ts";

export interface CheckDependencies {
  readonly registry: Pick<RegistryClient, "tryCredential">;
  readonly providersOf: ProvidersOf;
  /** `[health] probe_push`. */
  readonly probePush: boolean;
}

/** Where in its registry a credential is tried. */
export interface CheckPlace {
  readonly repository: string;
  /** Of an image there; `undefined`: none is known. */
  readonly digest?: string | undefined;
  readonly tag?: string | undefined;
}

/** The place that a secret's owner named: `REPOSITORY` or `REPOSITORY:TAG`. */
export function placeNamed(text: string): CheckPlace {
  const [repository = "", tag] = text.split(":");
  return { repository, ...(tag === undefined ? {} : { tag }) };
}

/** What a check found; the words are those of the error that a run would end with. */
export interface CheckOutcome {
  /** `refused`: its registry or its issuer says no. `unknown`: nobody could be asked. */
  readonly verdict: "ok" | "refused" | "unknown";
  readonly code?: string | undefined;
  readonly reason?: string | undefined;
  readonly next?: string | undefined;
  readonly rights: CredentialRights;
  /** By the credential's own word. */
  readonly expiresAt?: Date | undefined;
  readonly retryAfterMs?: number | undefined;
}

/** One check, whatever it asks, takes no longer. */
const checkTimeoutMs = 45_000;
const rightsOrder: readonly CredentialRights[] = ["unknown", "pull", "push"];

/**
 * Tries a credential where it is used: by its issuer, then for each of the places, else at the registry alone. The first
 * refusal is the outcome. That a repository or an image is not there is no fault of the credential: then the registry
 * alone decides, and the outcome says what is missing.
 *
 * @param timeoutMs after which a registry counts as unreachable
 */
export async function checkCredential(
  dependencies: CheckDependencies,
  workspaceId: string,
  credential: RegistryCredential,
  places: readonly CheckPlace[],
  signal: AbortSignal,
  timeoutMs = checkTimeoutMs,
): Promise<CheckOutcome> {
  const limit = AbortSignal.timeout(timeoutMs);
  const either = AbortSignal.any([signal, limit]);
  const { registry } = credential;
  let rights: CredentialRights = "unknown";
  let expiresAt: Date | undefined;
  let missing: RegistryError | undefined;
  let proved = 0;
  try {
    for (const { repository, digest, tag } of places) {
      const provider = await providerFor(dependencies, workspaceId, credential, repository);
      expiresAt = await endsAt(provider, either);
      const options = { probePush: dependencies.probePush, signal: either };
      try {
        const tried = await dependencies.registry.tryCredential(
          { registry, repository, digest, tag },
          provider,
          options,
        );
        rights = widest(rights, tried.rights);
        if (tried.proved) proved += 1;
      } catch (error) {
        if (!(error instanceof RegistryError) || error.code !== "not_found") throw error;
        missing = error;
      }
    }
    if (proved > 0 && missing === undefined) return { verdict: "ok", rights, expiresAt };
    if (proved === 0) {
      const provider = await providerFor(dependencies, workspaceId, credential, undefined);
      expiresAt = await endsAt(provider, either);
      const at = { registry, repository: undefined };
      const tried = await dependencies.registry.tryCredential(at, provider, {
        probePush: false,
        signal: either,
      });
      if (!tried.proved) return { ...unasked(registry, missing), rights, expiresAt };
    }
    return { verdict: "ok", rights, expiresAt, ...notThere(missing) };
  } catch (error) {
    signal.throwIfAborted();
    if (limit.aborted && !(error instanceof CodedError)) {
      return { ...silent(registry, timeoutMs), rights, expiresAt };
    }
    return { ...failureOf(error), rights, expiresAt };
  }
}

async function providerFor(
  { providersOf }: CheckDependencies,
  workspaceId: string,
  credential: RegistryCredential,
  repository: string | undefined,
): Promise<CredentialProvider> {
  const dependencies = await providersOf(workspaceId);
  return createProvider(credential, {
    ...dependencies,
    ...(repository === undefined ? {} : { repository }),
  });
}

/** What is renewed has no end of its own. */
async function endsAt(provider: CredentialProvider, signal: AbortSignal): Promise<Date | undefined> {
  if (provider.renewable) return undefined;
  const endsAtMs = endOf(await provider.authorization(signal));
  return endsAtMs === undefined ? undefined : new Date(endsAtMs);
}

function widest(one: CredentialRights, other: CredentialRights): CredentialRights {
  return rightsOrder.indexOf(other) > rightsOrder.indexOf(one) ? other : one;
}

/** The outcome of whatever a check throws; what says nothing about the credential is thrown on. */
function failureOf(error: unknown): Omit<CheckOutcome, "rights" | "expiresAt"> {
  if (error instanceof RegistryError) {
    const verdict = isRefusal(error) ? "refused" : "unknown";
    return { verdict, ...wordsOf(error), retryAfterMs: error.retryAfterMs };
  }
  if (error instanceof CredentialError) {
    return { verdict: error.code === "provider_unreachable" ? "unknown" : "refused", ...wordsOf(error) };
  }
  if (error instanceof SecretError && error.code === "undecryptable") {
    return { verdict: "refused", ...wordsOf(error) };
  }
  throw error;
}

export function wordsOf({ code, message, next }: CodedError): Pick<CheckOutcome, "code" | "reason" | "next"> {
  return { code, reason: message, ...(next === undefined ? {} : { next }) };
}

function notThere(missing: RegistryError | undefined): Pick<CheckOutcome, "code" | "reason" | "next"> {
  if (missing === undefined) return {};
  const reason = `the credential is taken, but ${missing.message}`;
  return { code: missing.code, reason, ...(missing.next === undefined ? {} : { next: missing.next }) };
}

function unasked(
  registry: string,
  missing: RegistryError | undefined,
): Pick<CheckOutcome, "verdict" | "code" | "reason" | "next"> {
  if (missing !== undefined) return { verdict: "unknown", ...wordsOf(missing) };
  return {
    verdict: "unknown",
    code: "unasked",
    reason: `${registry} answers without asking for a credential, so this one was not tried`,
    next: "Create it with the name of a private repository: `oci-node secret create REGISTRY/REPOSITORY`.",
  };
}

function silent(
  registry: string,
  timeoutMs: number,
): Pick<CheckOutcome, "verdict" | "code" | "reason" | "next"> {
  return {
    verdict: "unknown",
    code: "timeout",
    reason: `${registry} did not answer within ${timeoutMs / 1000} s`,
    next: "It is tried again by itself.",
  };
}
