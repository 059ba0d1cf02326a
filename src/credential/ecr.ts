import { Redacted } from "../std/redacted.ts";
import { callLimit, clientSettings } from "./aws-client.ts";
import { type AwsAsked, awsProblem } from "./aws-error.ts";
import type { EcrRegistry } from "./ecr-host.ts";
import { CredentialError } from "./error.ts";
import { issuedProvider } from "./issued-provider.ts";
import { type AwsKeys, fetchOf, type ProviderDependencies } from "./issuer.ts";
import type { CredentialProvider, CredentialType, RegistryAuthorization } from "./provider.ts";

/**
 * ECR's tokens live twelve hours; we renew after half of them, so that AWS may be away for as long as that, or five minutes
 * before the end that the API names.
 */
const keepRule = { lifeMs: 6 * 3600_000, marginMs: 5 * 60_000 };

/** Where keys come from, each time that a token is due. */
export interface AwsKeySource extends Pick<AwsAsked, "keys" | "renew"> {
  readonly ask: () => Promise<AwsKeys>;
}

export interface EcrAccess {
  readonly registry: string;
  readonly ecr: EcrRegistry;
  readonly type: CredentialType;
  readonly fingerprint: string;
  readonly source: AwsKeySource;
}

/** Amazon ECR and ECR Public: `GetAuthorizationToken` with the keys of the source. */
export function ecrProvider(access: EcrAccess, dependencies: ProviderDependencies): CredentialProvider {
  return issuedProvider(access, keepRule, () => issueToken(access, dependencies), dependencies);
}

async function issueToken(
  { registry, ecr, source }: EcrAccess,
  dependencies: ProviderDependencies,
): Promise<RegistryAuthorization> {
  const keys = await source.ask();
  const settings = clientSettings({
    region: ecr.region,
    endpoint: ecr.apiEndpoint,
    keys,
    send: fetchOf(dependencies),
  });
  const isPublic = ecr.account === undefined;
  const data = await (isPublic ? publicToken(settings) : privateToken(settings)).catch(
    async (error: unknown) => {
      throw await awsProblem(error, {
        host: new URL(ecr.apiEndpoint).host,
        wanted: `token for ${registry}`,
        keys: source.keys,
        renew: source.renew,
        denied: (name) => denied(registry, source.keys, isPublic, name),
      });
    },
  );
  const decoded = Buffer.from(data?.authorizationToken ?? "", "base64").toString("utf8");
  const colon = decoded.indexOf(":");
  if (colon <= 0 || colon === decoded.length - 1) {
    throw new CredentialError("provider_failed", `AWS answered without a token for ${registry}`, {
      next: "Try again; if it stays so, check what answers in place of the ECR API.",
    });
  }
  return {
    kind: "basic",
    username: decoded.slice(0, colon),
    password: new Redacted(decoded.slice(colon + 1)),
    ...(data?.expiresAt === undefined ? {} : { expiresAt: data.expiresAt }),
    // A private registry takes nothing else; the public one has a token service of its own.
    ...(isPublic ? {} : { preemptive: true }),
  };
}

type Settings = ReturnType<typeof clientSettings>;
interface TokenData {
  readonly authorizationToken?: string | undefined;
  readonly expiresAt?: Date | undefined;
}

async function privateToken(settings: Settings): Promise<TokenData | undefined> {
  const { ECRClient, GetAuthorizationTokenCommand } = await import("@aws-sdk/client-ecr");
  const client = new ECRClient(settings);
  try {
    return (await client.send(new GetAuthorizationTokenCommand({}), callLimit())).authorizationData?.[0];
  } finally {
    client.destroy();
  }
}

async function publicToken(settings: Settings): Promise<TokenData | undefined> {
  const { ECRPUBLICClient, GetAuthorizationTokenCommand } = await import("@aws-sdk/client-ecr-public");
  const client = new ECRPUBLICClient(settings);
  try {
    return (await client.send(new GetAuthorizationTokenCommand({}), callLimit())).authorizationData;
  } finally {
    client.destroy();
  }
}

function denied(registry: string, keys: string, isPublic: boolean, name: string): CredentialError {
  const rights = isPublic
    ? "ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken"
    : "ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer";
  return new CredentialError(
    "provider_failed",
    `AWS does not allow ${keys} to pull from ${registry} (${name})`,
    {
      next: `Allow ${rights} to the keys' user or role.`,
    },
  );
}
