import type { IdentitySettings } from "../config.ts";
import { azureIdentity } from "../credential/azure-identity.ts";
import { CredentialError } from "../credential/error.ts";
import { googleIdentity } from "../credential/google-identity.ts";
import type { Identity, IdentityDependencies } from "../credential/issuer.ts";
import { pluginIdentity } from "../credential/plugin-identity.ts";

/** One of the operator's identities as the configuration describes it. Asks nobody yet. */
export function createIdentity(
  name: string,
  settings: IdentitySettings,
  dependencies: IdentityDependencies,
): Identity {
  switch (settings.type) {
    case "gcp":
      return googleIdentity(
        name,
        { source: settings.source, serviceAccount: settings.service_account },
        dependencies,
      );
    case "plugin":
      return pluginIdentity(
        name,
        {
          command: settings.command,
          env: settings.env,
          matchImages: settings.match_images,
          timeoutMs: settings.timeout,
          apiVersion: settings.api_version,
        },
        dependencies,
      );
    case "azure":
      return azureIdentity(
        name,
        {
          source: settings.source,
          clientId: settings.client_id,
          tenantId: settings.tenant_id,
          tokenFile: settings.token_file,
        },
        dependencies,
      );
    case "aws":
      throw new CredentialError(
        "identity_refused",
        `the identity ${name} is of type ${settings.type}, which this version cannot use`,
        { next: "Use another identity, or give credentials." },
      );
  }
}
