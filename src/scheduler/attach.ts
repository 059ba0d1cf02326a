import { randomUUID } from "node:crypto";
import type { AuditEvent } from "../audit/audit.ts";
import type { Container } from "../container/container.ts";
import type { ImageCredential } from "../container/image-credential.ts";
import { createProvider } from "../credential/create-provider.ts";
import { CredentialError } from "../credential/error.ts";
import { identityKey, identityName } from "../credential/identity.ts";
import type { DefaultProvider, ProvidersOf } from "../credential/issuer.ts";
import { unmarshalCredentials } from "../credential/marshal.ts";
import type { Image } from "../image/image.ts";
import type { RegistryClient } from "../registry/client.ts";
import { isRefusal } from "../registry/error.ts";
import { newForMs } from "../registry/session.ts";
import { SecretError } from "../secret/error.ts";
import { opaqueType } from "../secret/opaque.ts";
import { sealTo } from "../secret/seal.ts";
import type { Vault } from "../secret/vault.ts";
import { logger } from "../std/log.ts";
import type { Redacted } from "../std/redacted.ts";
import { type Deliverable, type Delivery, deliver } from "./deliver.ts";
import type { Worker } from "./worker.ts";

const log = logger("scheduler");
const sealedLifeMs = 5 * 60_000;
/** A proof that is older says nothing of how the secret fares now. */
const newsMs = 30_000;

export interface AttachDependencies {
  readonly vault: Pick<Vault, "read" | "get" | "readNamed">;
  readonly registry: Pick<RegistryClient, "mintPull" | "mintedPull">;
  readonly providersOf: ProvidersOf;
  readonly defaultProvider: DefaultProvider;
  /** What the workspace's policy says that workers get. */
  readonly deliveryOf: (workspaceId: string) => Promise<"minted" | "sealed">;
  /** Told that a registry or an issuer refused a secret, or took it, just now; nobody waits for it, and it never throws. */
  readonly seen?: ((secretId: string, what: "refused" | "proved") => Promise<void>) | undefined;
  /** How long a proof of access counts in the workspace, in milliseconds; 0: not at all. */
  readonly grantLifeOf: (workspaceId: string) => Promise<number>;
  /** Writes down which credential went to which worker; nobody waits for it. */
  readonly noteUse: (event: AuditEvent) => void;
}

/** What a container request says of its image's credentials. */
export interface AttachedCredentials {
  /** Binds the sealed text to one hand-over. */
  readonly requestId: string;
  /** Sealed to the worker's boot key; empty: none. */
  readonly sealed: string;
  readonly expiresAt: Date;
  /** Why what the image's row names is not there. */
  readonly absentReason: string;
  /** What it is; never a value. */
  readonly credential: ImageCredential;
  /** The registry said, asked with this, that the container may have the image. */
  readonly accessProved?: boolean;
  /** How long ago this was got with the credential itself; absent: it is that, or nothing. */
  readonly provedAgoMs?: number | undefined;
  /** How long that counts. */
  readonly grantLifeMs: number;
}

export interface AttachOptions {
  /** The worker had the image handed over before. */
  readonly known?: boolean;
  /** The worker has something already. */
  readonly renewal?: boolean;
  /** The container is yet to start: what it gets is to prove access. Default: unless it is a renewal. */
  readonly starting?: boolean;
  /** The registry refuses what the worker has. */
  readonly refused?: boolean;
  readonly signal?: AbortSignal;
}

/** Where a credential was found, for those who look. */
type Origin = Pick<ImageCredential, "secretName" | "secretId" | "secretVersion" | "identity">;

/**
 * Reads the secret that the container's image names from the database, this very moment, and seals to the chosen worker what is
 * minted from it, or itself. No cache of secrets stands in between: what was rotated is what is used.
 *
 * A public image has none. For a secret that is gone or cannot be decrypted the workspace's default identity stands in;
 * where there is none, that is told (event, log) and the run goes on without: the registry has the last word.
 *
 * @throws RegistryError, CredentialError: who was asked for an authorization said no, or could not be asked and there is
 *   nothing else to give
 */
export async function attachCredentials(
  dependencies: AttachDependencies,
  container: Container,
  image: Image,
  worker: Worker,
  options: AttachOptions = {},
): Promise<AttachedCredentials> {
  const { renewal = false, starting = !renewal, refused = false, known = false, signal } = options;
  const requestId = randomUUID();
  const givenAt = new Date();
  const expiresAt = new Date(givenAt.getTime() + sealedLifeMs);
  const [found, wanted, grantLifeMs] = await Promise.all([
    find(dependencies, container, image),
    dependencies.deliveryOf(container.workspaceId),
    dependencies.grantLifeOf(container.workspaceId),
  ]);
  const { absentReason = "" } = found;
  if (found.deliverable === undefined) {
    const credential = { delivery: "none" as const, givenAt };
    return { requestId, sealed: "", expiresAt, absentReason, credential, grantLifeMs };
  }
  const { origin } = found;
  const saw = (what: "refused" | "proved"): void => {
    if (origin?.secretId !== undefined) void dependencies.seen?.(origin.secretId, what);
  };
  const before = container.imageCredential;
  // What is minted anew was asked for with the credential, which is the very question: unless that was just so.
  const anew = refused && before?.delivery === "minted" && before.secretVersion === origin?.secretVersion;
  const again = Number(before?.givenAt) > givenAt.getTime() - newForMs;
  if (refused && (!anew || again)) saw("refused");
  const delivery = await deliver(dependencies.registry, found.deliverable, {
    wanted,
    known,
    grantLifeMs: starting ? grantLifeMs : undefined,
    signal,
    anew,
    hasUntil:
      renewal && !refused && Number(before?.validUntil) > givenAt.getTime() ? before?.validUntil : undefined,
  }).catch((error: unknown) => {
    if (blamesCredential(error)) saw("refused");
    throw error;
  });
  const isNews = (delivery.provedAgoMs ?? 0) < newsMs;
  if (!refused && delivery.accessProved === true && isNews) saw("proved");
  const context = { requestId, containerId: container.id, workerId: worker.id, expiresAt };
  const sealed =
    delivery.text === undefined
      ? ""
      : await sealTo(worker.bootPublicKey, delivery.text, { ...context, bootNonce: worker.bootNonce });
  const { type } = found.deliverable.provider;
  // Its times count from now on: how long it took to get is not a part of its life.
  const credential = { givenAt: new Date(), ...origin, type, ...describing(delivery) };
  log.info("added OCI credentials to container request", {
    container: container.id,
    image: container.imageId,
    worker: worker.id,
    ...(origin?.secretName === undefined ? {} : { secret: origin.secretName, version: origin.secretVersion }),
    ...(origin?.identity === undefined ? {} : { identity: origin.identity }),
    delivery: delivery.delivery,
    scope: delivery.scope,
    validUntil: delivery.validUntil?.toISOString(),
  });
  if (gives(before, credential, renewal)) noteUse(dependencies, container, image, worker, credential);
  const { accessProved = false, provedAgoMs } = delivery;
  return { requestId, sealed, expiresAt, absentReason, credential, accessProved, provedAgoMs, grantLifeMs };
}

function blamesCredential(error: unknown): boolean {
  if (error instanceof CredentialError) return error.code !== "provider_unreachable";
  return isRefusal(error);
}

/** A renewal of the same is no news; it comes every few minutes. */
function gives(before: ImageCredential | undefined, now: ImageCredential, renewal: boolean): boolean {
  if (now.delivery === "none") return false;
  if (!renewal || before === undefined) return true;
  const same = (["delivery", "secretId", "secretVersion", "identity"] as const).every(
    (field) => before[field] === now[field],
  );
  return !same;
}

function noteUse(
  { noteUse: note }: AttachDependencies,
  container: Container,
  image: Image,
  worker: Worker,
  { delivery, secretId, secretName, secretVersion, identity, scope }: ImageCredential,
): void {
  const fields = {
    container: container.id,
    image: image.id,
    worker: worker.id,
    delivery,
    ...(secretVersion === undefined ? {} : { version: String(secretVersion) }),
    ...(identity === undefined ? {} : { identity }),
    ...(scope === undefined ? {} : { scope }),
  };
  note({
    actor: { kind: "node", id: "scheduler", name: "scheduler" },
    workspaceId: container.workspaceId,
    action: "secret.use",
    target: { kind: "secret", id: secretId, name: secretName ?? identity },
    outcome: "ok",
    fields,
  });
}

function describing({ delivery, scope, validUntil, renewAt, sealedReason }: Delivery) {
  return { delivery, scope, validUntil, renewAt, sealedReason };
}

interface Found {
  /** `undefined`: there is no credential. */
  readonly deliverable?: Deliverable;
  readonly origin?: Origin;
  readonly absentReason?: string;
}

async function find(dependencies: AttachDependencies, container: Container, image: Image): Promise<Found> {
  const { registry, repository, manifestDigest: digest, credentialSecretName, credentialSecretId } = image;
  if (credentialSecretName === undefined || credentialSecretId === undefined) return {};
  const named = { secretName: credentialSecretName, secretId: credentialSecretId };
  const reference = { registry, repository, digest };
  const providing = dependencies.providersOf(container.workspaceId);
  // Where there is no secret nobody waits for it.
  providing.catch(() => undefined);
  let secret: { id: string; value: Redacted<string>; version: number };
  try {
    secret = await readByIdOrName(dependencies.vault, container.workspaceId, named);
  } catch (error) {
    return await standIn(dependencies, container, reference, absence(error, named.secretName));
  }
  const { id: secretId, version: secretVersion, value } = secret;
  const credential = unmarshalCredentials(value);
  const provider = createProvider(credential, { ...(await providing), repository });
  const identity = identityKey in credential.credentials ? identityName(credential.credentials) : undefined;
  const origin = {
    secretName: named.secretName,
    secretId,
    secretVersion,
    ...(identity === undefined ? {} : { identity }),
  };
  return { deliverable: { reference, credential, provider, value }, origin };
}

/** The operator's identity that stands in for a secret that is missing, where there is one. */
async function standIn(
  { defaultProvider }: AttachDependencies,
  container: Container,
  reference: Deliverable["reference"],
  absentReason: string,
): Promise<Found> {
  const { registry, repository } = reference;
  const identity = await defaultProvider(container.workspaceId, registry, repository);
  log.warn("the image's credentials are missing from the container request", {
    container: container.id,
    image: container.imageId,
    reason: absentReason,
    ...(identity === undefined ? {} : { identity: identity.name }),
  });
  if (identity === undefined) return { absentReason };
  const { name, credential, provider } = identity;
  return { deliverable: { reference, credential, provider }, origin: { identity: name }, absentReason };
}

/** Why a secret is missing; every other error is thrown on. */
function absence(error: unknown, secretName: string): string {
  if (error instanceof SecretError && error.code === "not_found")
    return `the image's secret ${secretName} is gone`;
  if (error instanceof SecretError && error.code === "undecryptable")
    return `the image's secret ${secretName} cannot be decrypted`;
  throw error;
}

/** The secret that the image was built with; when that was removed and made again, the one that has its name now. */
async function readByIdOrName(
  vault: AttachDependencies["vault"],
  workspaceId: string,
  named: { secretId: string; secretName: string },
) {
  try {
    return { id: named.secretId, ...(await vault.read(workspaceId, named.secretId)) };
  } catch (error) {
    if (!(error instanceof SecretError) || error.code !== "not_found") throw error;
    const { id, type } = await vault.get(workspaceId, named.secretName);
    // What has its name now is no credential.
    if (type === opaqueType) throw error;
    return { id, ...(await vault.read(workspaceId, id)) };
  }
}
