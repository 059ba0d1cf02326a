import type { Redacted } from "../std/redacted.ts";
import { createProvider } from "./create-provider.ts";
import { CredentialError } from "./error.ts";
import { marshalCredentials, unmarshalCredentials } from "./marshal.ts";
import type { CredentialProvider, RegistryAuthorization } from "./provider.ts";
import { credentialMap } from "./value.ts";

/**
 * An authorization in the form of a credential, as it goes to a worker: `basic` and `token`. Its end goes beside it.
 *
 * @throws CredentialError `provider_failed` for one that is nothing to hand over
 */
export function marshalMinted(registry: string, authorization: RegistryAuthorization): Redacted<string> {
  switch (authorization.kind) {
    case "basic": {
      const { username, password } = authorization;
      const credentials = credentialMap({ USERNAME: username, PASSWORD: password.expose() });
      return marshalCredentials(registry, "basic", credentials);
    }
    case "bearer":
      return marshalCredentials(
        registry,
        "token",
        credentialMap({ REGISTRY_TOKEN: authorization.token.expose() }),
      );
    default:
      throw new CredentialError(
        "provider_failed",
        `nothing was issued for ${registry} that can be handed on`,
        {
          next: "Check the credential with `oci-node image build`.",
        },
      );
  }
}

/**
 * The provider of what {@link marshalMinted} wrote. The registry is known to ask for just this, so it goes with the first
 * request.
 *
 * @throws CredentialError
 */
export function mintedProvider(text: Redacted<string>, expiresAt: Date | undefined): CredentialProvider {
  const provider = createProvider(unmarshalCredentials(text));
  return {
    registry: provider.registry,
    type: provider.type,
    fingerprint: provider.fingerprint,
    renewable: false,
    async authorization(signal) {
      const authorization = await provider.authorization(signal);
      if (authorization.kind === "anonymous") return authorization;
      const end = expiresAt === undefined ? {} : { expiresAt };
      return authorization.kind === "basic"
        ? { ...authorization, ...end, preemptive: true }
        : { ...authorization, ...end };
    },
  };
}
