import type { ImageCredential } from "../../container/image-credential.ts";
import { createProvider } from "../../credential/create-provider.ts";
import type { LeaseTerm } from "../../credential/lease.ts";
import { unmarshalCredentials } from "../../credential/marshal.ts";
import { mintedProvider } from "../../credential/minted.ts";
import { anonymousProvider } from "../../credential/provider.ts";
import { parseReference } from "../../reference/reference.ts";
import type { RegistryClient } from "../../registry/client.ts";
import type { BootKey, SealContext } from "../../secret/seal.ts";
import type { AccessGrants } from "./grants.ts";

/** A container of this worker, and the image that it uses. */
export interface ImageUser {
  readonly containerId: string;
  readonly attempt: number;
  readonly workspaceId: string;
  readonly manifestDigest: string;
}

/** What a worker was given to fetch an image with. */
export interface ImageAccess {
  readonly containerId: string;
  readonly workspaceId: string;
  /** `registry/repository@digest`. */
  readonly imageReference: string;
  readonly manifestDigest: string;
  /** The credentials, sealed to this worker's boot; empty: none. */
  readonly sealedCredentials: string;
  readonly sealContext: SealContext;
  readonly absentReason: string;
  /** What they are; absent: the scheduler does not say. */
  readonly credential: ImageCredential | undefined;
  /** The registry said that the image may be had, when the scheduler asked with these credentials. */
  readonly accessProved?: boolean;
  /** How long ago they were got with the credential itself; absent: they are that. */
  readonly provedAgoMs?: number;
  /** How long a proof of access counts; absent: not at all. */
  readonly grantLifeMs?: number;
}

export interface AccessDependencies {
  readonly bootKey: BootKey;
  readonly registry: RegistryClient;
  readonly grants: AccessGrants;
}

/** Tells the container's events. */
export type EventSink = (kind: string, message: string, fields?: Record<string, string>) => void;

/**
 * Opens what was sealed to this boot. No credential, a credential, and a credential that failed are three things: without
 * one the registry is asked anonymously; with one, a refusal is final, by name, and nothing else is tried.
 * @throws SecretError, CredentialError
 */
export async function openTerm(
  { bootKey, registry }: AccessDependencies,
  access: ImageAccess,
): Promise<LeaseTerm> {
  const { absentReason, credential } = access;
  if (access.sealedCredentials === "") {
    const provider = anonymousProvider(parseReference(access.imageReference).registry);
    return { provider, ...(absentReason === "" ? {} : { absentReason }) };
  }
  const text = await bootKey.open(access.sealedCredentials, access.sealContext);
  const { validForMs, renewInMs } = spansOf(credential);
  const spans = {
    ...(validForMs === undefined ? {} : { validForMs }),
    ...(renewInMs === undefined ? {} : { renewInMs }),
  };
  if (credential?.delivery === "minted") {
    const expiresAt = validForMs === undefined ? undefined : new Date(Date.now() + validForMs);
    return { provider: mintedProvider(text, expiresAt), ...spans };
  }
  const { repository } = parseReference(access.imageReference);
  const issuers = { fetch: registry.issuerFetch, repository };
  return { provider: createProvider(unmarshalCredentials(text), issuers), ...spans };
}

/** Times as spans from now on: they are those of the scheduler's clock, and this machine's may go otherwise. */
function spansOf(credential: ImageCredential | undefined) {
  const { givenAt, validUntil, renewAt } = credential ?? {};
  const from = (time: Date | undefined) =>
    time === undefined || givenAt === undefined ? undefined : Math.max(0, time.getTime() - givenAt.getTime());
  return { validForMs: from(validUntil), renewInMs: from(renewAt) };
}
