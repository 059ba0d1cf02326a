import type { Redacted } from "../std/redacted.ts";
import { waitFor } from "../std/wait.ts";

export const credentialTypes = ["public", "basic", "aws", "gcp", "azure", "token", "identity"] as const;

/**
 * How a credential turns into something that a registry understands. `public` is a decision ("this image needs
 * none"), not a fallback; `token` is a bearer or refresh token handed over as it is; `identity` is one of the operator's
 * own identities, by its name.
 */
export type CredentialType = (typeof credentialTypes)[number];

/** Values by key (`AWS_ACCESS_KEY_ID`, `USERNAME`, …), as a user gave them. */
export type CredentialMap = Readonly<Record<string, Redacted<string>>>;

/** The value of a workspace secret: which registry, of which kind, and the keys. */
export interface RegistryCredential {
  /** Canonical, as {@link import("../reference/reference.ts").Reference.registry}. */
  readonly registry: string;
  readonly type: CredentialType;
  readonly credentials: CredentialMap;
}

/**
 * What a registry request carries. `expiresAt`: when the issuer says that it ends; absent means not known. `preemptive`:
 * the registry is known to ask for just this, so it goes with the first request already.
 */
export type RegistryAuthorization =
  | { readonly kind: "anonymous" }
  | {
      readonly kind: "basic";
      readonly username: string;
      readonly password: Redacted<string>;
      readonly expiresAt?: Date;
      readonly preemptive?: boolean;
    }
  | { readonly kind: "bearer"; readonly token: Redacted<string>; readonly expiresAt?: Date }
  | { readonly kind: "refresh"; readonly token: Redacted<string>; readonly expiresAt?: Date };

/** One credential, bound to one registry. Made whole; asks its issuer (AWS, Google) only when a request needs it. */
export interface CredentialProvider {
  readonly registry: string;
  readonly type: CredentialType;
  /** Opaque and safe to log: equal for equal credentials in this process, different otherwise and after a restart. */
  readonly fingerprint: string;
  /** Whether asking with `refresh` can bring another authorization than the one that was refused. */
  readonly renewable: boolean;
  /** What to do when the registry refuses it, where that is better known here: one sentence. */
  readonly advice?: string | undefined;
  /**
   * What to send now.
   * @param refresh the registry refused the last one: ask the issuer again, where there is one
   * @throws CredentialError `provider_failed` when the issuer refuses or cannot be reached
   */
  authorization(
    signal?: AbortSignal,
    options?: { readonly refresh?: boolean },
  ): Promise<RegistryAuthorization>;
}

/** The provider of *no credential*: a public image. */
export function anonymousProvider(registry: string): CredentialProvider {
  return {
    registry,
    type: "public",
    fingerprint: "anonymous",
    renewable: false,
    authorization: async () => ({ kind: "anonymous" }),
  };
}

/**
 * The same credential under a fingerprint of its own: tokens that were got with it earlier do not count, so the next
 * request proves the credential itself. What a build needs before it keeps one.
 *
 * @param askIssuer what its issuer made earlier does not count either: keys that were withdrawn must not take the place of
 *   those that came after them because a token of theirs lives on
 */
export function provedAnew(provider: CredentialProvider, askIssuer = true): CredentialProvider {
  let proof: Promise<RegistryAuthorization> | undefined;
  const prove = (): Promise<RegistryAuthorization> => {
    // Several wait for it, so it has nobody's signal; issuers are asked in a time of their own.
    const asked = provider.authorization(undefined, { refresh: true });
    asked.catch(() => {
      proof = undefined;
    });
    return asked;
  };
  return {
    registry: provider.registry,
    type: provider.type,
    fingerprint: `${provider.fingerprint}-${crypto.randomUUID()}`,
    renewable: provider.renewable,
    advice: provider.advice,
    async authorization(signal, options) {
      if (!askIssuer || !provider.renewable) return await provider.authorization(signal, options);
      const isFirst = proof === undefined;
      proof ??= prove();
      const proved = await waitFor(proof, signal);
      return isFirst ? proved : await provider.authorization(signal, options);
    },
  };
}
