import type { CredentialProvider, RegistryAuthorization } from "../credential/provider.ts";
import { Redacted } from "../std/redacted.ts";

/** A provider whose issuer gives numbered authorizations: the first is 1, each refresh makes the next. */
export interface NumberedProvider extends CredentialProvider {
  /** Times that the issuer was asked anew. */
  refreshes(): number;
}

export type AuthorizationOf = (number: number) => RegistryAuthorization;

/** `AWS:N`, as ECR's issuer makes them. */
export const awsPassword =
  (expiresAt = new Date(0)): AuthorizationOf =>
  (number) => ({ kind: "basic", username: "AWS", password: new Redacted(String(number)), expiresAt });

/** What a lease of a container gives: a bearer token that somebody else got. */
export const leasedToken: AuthorizationOf = (number) => ({
  kind: "bearer",
  token: new Redacted(`t${number}`),
});

/** @param delay what each refresh waits for, so that many may ask while it is under way */
export function numberedProvider(
  registry: string,
  authorizationOf: AuthorizationOf,
  delay: () => Promise<unknown> = async () => undefined,
): NumberedProvider {
  let number = 1;
  return {
    registry,
    type: "aws",
    fingerprint: crypto.randomUUID(),
    renewable: true,
    refreshes: () => number - 1,
    authorization: async (_, options) => {
      if (options?.refresh === true) {
        await delay();
        number += 1;
      }
      return authorizationOf(number);
    },
  };
}
