import type { Redacted } from "../std/redacted.ts";
import type { StsPlace } from "./ecr-host.ts";
import { CredentialError } from "./error.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { CredentialProvider, RegistryCredential } from "./provider.ts";

/** Sends a request to an issuer of credentials: the egress of the registry room, or a test's way to its loopback server. */
export type IssuerFetch = (url: string, init: RequestInit) => Promise<Response>;

/** A key pair of AWS with what belongs to it. */
export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: Redacted<string>;
  readonly sessionToken?: Redacted<string>;
  readonly expiresAt?: Date;
}

/** One of the operator's own identities: an instance's role, a metadata server, a plugin. */
export interface Identity {
  readonly name: string;
  /**
   * The provider of this identity for a registry.
   *
   * @param repository where it is known; only a plugin asks for it
   * @throws CredentialError `registry_mismatch`
   */
  provider(registry: string, repository?: string): CredentialProvider;
  /**
   * The keys from which a tenant's role may be assumed; only of identities of AWS.
   *
   * @param near whose STS is asked, where one has to be; absent: that of the partition's first region
   */
  readonly awsKeys?: (signal?: AbortSignal, near?: StsPlace) => Promise<AwsKeys>;
  /** An access token for Google's APIs; only of identities of Google. */
  readonly googleToken?: (signal?: AbortSignal) => Promise<Redacted<string>>;
}

/** What one of the operator's identities is made with. */
export interface IdentityDependencies {
  readonly fetch: IssuerFetch;
  /** To the metadata services of clouds, which a tenant's credential never reaches. */
  readonly metadataFetch: IssuerFetch;
  readonly issued?: IssuedAuthorizations;
  readonly now?: () => number;
}

/** Who the workspace of a credential is, to clouds. */
export interface WorkspaceIdentity {
  readonly name: string;
  /** `sts:ExternalId` of every role that is assumed for it. Made by us, never a tenant's choice. */
  readonly externalId: string;
  /** A short-lived OpenID Connect token of this workspace for an audience; absent: the operator has set no issuer. */
  readonly token?: (audience: string) => Promise<Redacted<string>>;
  /** An identity of the operator's. @throws CredentialError `identity_refused` unless he allowed it for this workspace */
  identity(name: string): Identity;
}

/** What the providers of a workspace's credentials need. */
export type ProvidersOf = (workspaceId: string) => Promise<ProviderDependencies>;

/** The identity that is used where a workspace has no credential for a registry. */
export interface DefaultIdentity {
  readonly name: string;
  /** Names the identity; holds no value. */
  readonly credential: RegistryCredential;
  readonly provider: CredentialProvider;
}

/**
 * The workspace's default identity if the operator set one and it fits the registry; undefined: there is none, so the
 * registry is asked without a credential. Never for a credential that was refused.
 */
export type DefaultProvider = (
  workspaceId: string,
  registry: string,
  repository?: string,
) => Promise<DefaultIdentity | undefined>;

/** What providers need from outside. All optional; the defaults are right in the product. */
export interface ProviderDependencies {
  /** Absent: no issuer can be asked, which is right for credentials that need none. */
  readonly fetch?: IssuerFetch;
  readonly now?: () => number;
  /** Absent where no control plane stands behind (`mount`, `index`, workers): no roles, no federation, no identities. */
  readonly workspace?: WorkspaceIdentity;
  /** What is to be pulled, where it is known: a plugin may answer for one repository alone. */
  readonly repository?: string;
  /** Where issued authorizations are kept; by default one store for the process. */
  readonly issued?: IssuedAuthorizations;
}

export const issuerTimeoutMs = 20_000;
const bodySizeBytesMax = 64 * 1024;
const processWide = new IssuedAuthorizations();

export function issuedOf(dependencies: ProviderDependencies): IssuedAuthorizations {
  return dependencies.issued ?? processWide;
}

/** @throws TypeError when there is none: never `fetch` itself, which goes wherever it is sent */
export function fetchOf(dependencies: ProviderDependencies): IssuerFetch {
  const { fetch: send } = dependencies;
  if (send === undefined) throw new TypeError("a provider was made without a way to its issuer");
  return send;
}

/**
 * One request to an issuer: no redirect is followed, the time is bounded and the body is, too.
 *
 * @throws CredentialError `provider_failed` for a body that is too large, and whatever sending throws
 */
export async function askIssuer(
  send: IssuerFetch,
  url: string,
  init: RequestInit,
): Promise<{ readonly status: number; readonly headers: Headers; readonly body: Uint8Array<ArrayBuffer> }> {
  const limit = AbortSignal.timeout(issuerTimeoutMs);
  const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
  const response = await send(url, { ...init, redirect: "manual", signal });
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of response.body ?? []) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > bodySizeBytesMax) {
      const { host } = new URL(url);
      throw new CredentialError(
        "provider_failed",
        `${host} answers with more than ${bodySizeBytesMax / 1024} KiB`,
        {
          next: `Check what answers in place of ${host}.`,
        },
      );
    }
    chunks.push(chunk);
  }
  return { status: response.status, headers: response.headers, body: new Uint8Array(Buffer.concat(chunks)) };
}
