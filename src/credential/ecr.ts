import { ECRClient, GetAuthorizationTokenCommand } from "@aws-sdk/client-ecr";
import { Redacted } from "../std/redacted.ts";
import { type EcrHost, ecrApiEndpoint, parseEcrHost } from "./ecr-host.ts";
import { CredentialError } from "./error.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { askIssuer, fetchOf, type IssuerFetch, issuedOf, type ProviderDependencies } from "./issuer.ts";
import type {
  CredentialMap,
  CredentialProvider,
  RegistryAuthorization,
  RegistryCredential,
} from "./provider.ts";

/** ECR's tokens live twelve hours; we renew after eleven, or five minutes before the end that the API names. */
const keepRule = { lifeMs: 11 * 3600_000, marginMs: 5 * 60_000 };

/** Errors by which AWS says that the keys themselves are wrong (AWS API reference, "Common errors"). */
const keyErrors: ReadonlySet<string> = new Set([
  "UnrecognizedClientException",
  "InvalidClientTokenId",
  "InvalidSignatureException",
  "SignatureDoesNotMatch",
  "ExpiredTokenException",
  "ExpiredToken",
  "IncompleteSignatureException",
  "MissingAuthenticationTokenException",
]);

/**
 * Amazon ECR: `GetAuthorizationToken` with the keys given here and no others. Account and region come from the host.
 *
 * @throws CredentialError `registry_mismatch` when the host is no ECR registry or AWS_REGION names another region
 */
export function ecrProvider(
  credential: RegistryCredential,
  dependencies: ProviderDependencies,
): CredentialProvider {
  const { registry, credentials } = credential;
  const host = parseEcrHost(registry);
  if (host === undefined) {
    throw new CredentialError("registry_mismatch", `${registry} is not an Amazon ECR registry`, {
      next: "AWS keys are for ACCOUNT.dkr.ecr.REGION.amazonaws.com only.",
    });
  }
  const region = credentials["AWS_REGION"]?.expose();
  if (region !== undefined && region !== host.region) {
    throw new CredentialError(
      "registry_mismatch",
      `AWS_REGION is not the region of ${registry} (${host.region})`,
      {
        next: `Set AWS_REGION to ${host.region}, or leave it out.`,
      },
    );
  }
  const fingerprint = fingerprintOf(credential);
  return {
    registry,
    type: "aws",
    fingerprint,
    renewable: true,
    authorization: (signal, options) =>
      issuedOf(dependencies).get(
        fingerprint,
        keepRule,
        () => issueToken(registry, host, credentials, dependencies),
        {
          signal,
          refresh: options?.refresh,
        },
      ),
  };
}

async function issueToken(
  registry: string,
  host: EcrHost,
  credentials: CredentialMap,
  dependencies: ProviderDependencies,
): Promise<RegistryAuthorization> {
  const client = ecrClient(host, credentials, dependencies);
  try {
    const answer = await client.send(new GetAuthorizationTokenCommand({}));
    const data = answer.authorizationData?.[0];
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
    };
  } catch (error) {
    throw error instanceof CredentialError ? error : refused(registry, error);
  } finally {
    client.destroy();
  }
}

/**
 * Everything that the SDK would otherwise look up in the environment, in `~/.aws` or at the metadata service is given
 * here, endpoint and retry mode included: a tenant's keys never meet the node's own, nor its settings.
 */
function ecrClient(host: EcrHost, credentials: CredentialMap, dependencies: ProviderDependencies): ECRClient {
  const sessionToken = credentials["AWS_SESSION_TOKEN"]?.expose();
  return new ECRClient({
    region: host.region,
    endpoint: dependencies.ecrEndpoint ?? ecrApiEndpoint(host),
    credentials: {
      accessKeyId: credentials["AWS_ACCESS_KEY_ID"]?.expose() ?? "",
      secretAccessKey: credentials["AWS_SECRET_ACCESS_KEY"]?.expose() ?? "",
      ...(sessionToken === undefined ? {} : { sessionToken }),
    },
    maxAttempts: 3,
    retryMode: "standard",
    defaultsMode: "standard",
    useFipsEndpoint: false,
    useDualstackEndpoint: false,
    userAgentAppId: "oci-node",
    authSchemePreference: [],
    requestHandler: requestHandler(fetchOf(dependencies)) as never,
  });
}

interface SdkRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: Uint8Array<ArrayBuffer> | string;
}

/** The SDK's port for HTTP, on `fetch`. Host and Content-Length are fetch's own business. */
function requestHandler(send: IssuerFetch): object {
  return {
    metadata: { handlerProtocol: "http/1.1" },
    destroy: () => undefined,
    async handle(request: SdkRequest, options?: { abortSignal?: AbortSignal }): Promise<object> {
      const port = request.port === undefined ? "" : `:${request.port}`;
      const headers = new Headers(request.headers);
      headers.delete("host");
      headers.delete("content-length");
      const answer = await askIssuer(send, `${request.protocol}//${request.hostname}${port}${request.path}`, {
        method: request.method,
        headers,
        ...(request.body === undefined ? {} : { body: request.body }),
        ...(options?.abortSignal === undefined ? {} : { signal: options.abortSignal }),
      });
      return {
        response: {
          statusCode: answer.status,
          headers: Object.fromEntries(answer.headers),
          body: answer.body,
        },
      };
    },
  };
}

/** The SDK's messages may quote the signed request, session token included: only the error's name goes on. */
function refused(registry: string, error: unknown): CredentialError {
  const name = error instanceof Error && /^[A-Za-z]{1,60}$/.test(error.name) ? error.name : "unknown error";
  if (keyErrors.has(name)) {
    return new CredentialError("provider_failed", `AWS refuses the keys for ${registry} (${name})`, {
      next: "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; temporary keys need AWS_SESSION_TOKEN and expire.",
    });
  }
  if (name === "AccessDeniedException" || name === "AccessDenied") {
    return new CredentialError(
      "provider_failed",
      `AWS does not allow these keys to pull from ${registry} (${name})`,
      {
        next: "Allow ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer to the keys' user or role.",
      },
    );
  }
  return new CredentialError("provider_failed", `the ECR API gave no token for ${registry} (${name})`, {
    next: "Check that this machine reaches the ECR API of the registry's region, then try again.",
  });
}
