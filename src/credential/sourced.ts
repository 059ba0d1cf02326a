import { createProvider } from "./create-provider.ts";
import { detectCredentialType } from "./detect.ts";
import { CredentialError } from "./error.ts";
import { fingerprintOf } from "./fingerprint.ts";
import type { ProviderDependencies } from "./issuer.ts";
import type { CredentialMap, CredentialProvider } from "./provider.ts";

/**
 * The provider of a credential that another program keeps (Docker's helpers, Podman, a file): when the registry refuses
 * what was read, the source is read again, once for all who wait as the caller sees to it. For processes that live longer
 * than the tokens that such programs hand out.
 *
 * @param first what the source gave to begin with
 * @throws CredentialError as {@link createProvider}
 */
export function sourcedProvider(
  registry: string,
  first: CredentialMap,
  readAgain: () => Promise<CredentialMap>,
  dependencies: ProviderDependencies = {},
): CredentialProvider {
  const providerOf = (credentials: CredentialMap): CredentialProvider =>
    createProvider(
      { registry, type: detectCredentialType(registry, credentials), credentials },
      dependencies,
    );
  let current = providerOf(first);
  const advice = `Log in to ${registry} again where the credential is kept; what waits goes on then.`;
  return {
    registry,
    type: current.type,
    fingerprint: fingerprintOf({ registry, type: current.type, credentials: first }),
    renewable: true,
    advice,
    async authorization(signal, options) {
      if (options?.refresh !== true) return await current.authorization(signal);
      const next = providerOf(await readAgain());
      if (next.fingerprint !== current.fingerprint) {
        current = next;
        return await current.authorization(signal);
      }
      if (current.renewable) return await current.authorization(signal, options);
      // The same password once more could lock the account.
      throw new CredentialError(
        "unchanged",
        `${registry} does not take the credential any more, and where it came from has no other`,
        { next: advice },
      );
    },
  };
}
