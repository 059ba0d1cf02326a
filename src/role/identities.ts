import { type Config, ConfigError, type IdentitySettings } from "../config.ts";
import { awsIdentity } from "../credential/aws-identity.ts";
import { azureIdentity } from "../credential/azure-identity.ts";
import { CredentialError } from "../credential/error.ts";
import { googleIdentity } from "../credential/google-identity.ts";
import type { Identity, IdentityDependencies } from "../credential/issuer.ts";
import { pluginIdentity } from "../credential/plugin-identity.ts";

/**
 * The operator's identities as the configuration describes them. Asks nobody yet, but what is wrong in their settings is
 * found here: the operator is to see it at the start, not a tenant at a build.
 *
 * @throws ConfigError naming the identity
 */
export function createIdentities(
  settings: Config["identities"],
  dependencies: IdentityDependencies,
): ReadonlyMap<string, Identity> {
  return new Map(
    Object.entries(settings).map(([name, each]) => {
      try {
        return [name, createIdentity(name, each, dependencies)] as const;
      } catch (error) {
        if (!(error instanceof CredentialError)) throw error;
        throw new ConfigError("invalid", `identities.${name}: ${error.message}`, { next: error.next });
      }
    }),
  );
}

function createIdentity(
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
      return awsIdentity(
        name,
        {
          source: settings.source,
          roleArn: settings.role_arn,
          containerCredentialsUri: settings.container_credentials_uri,
          containerTokenFile: settings.container_token_file,
          webIdentityTokenFile: settings.web_identity_token_file,
        },
        dependencies,
      );
  }
}
