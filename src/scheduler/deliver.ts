import type { CredentialDelivery } from "../container/image-credential.ts";
import { CredentialError } from "../credential/error.ts";
import { canBeSealed } from "../credential/identity.ts";
import { marshalMinted } from "../credential/minted.ts";
import type { CredentialProvider, RegistryCredential } from "../credential/provider.ts";
import type { Reference } from "../reference/reference.ts";
import type { RegistryClient } from "../registry/client.ts";
import { RegistryError, type RegistryErrorCode } from "../registry/error.ts";
import type { Minted, MintedPull, MintOptions } from "../registry/mint.ts";
import { unproved } from "../registry/unproved.ts";
import type { Redacted } from "../std/redacted.ts";

/** Less than a worker waits for the answer, and than a scheduler's claim on a container lasts. */
const mintTimeoutMs = 8_000;
/** How soon what could not be minted for a reason that may pass is asked for again. */
const tryAgainInMs = 5 * 60_000;

/** A credential of the control plane's that is to be used on a worker. */
export interface Deliverable {
  readonly reference: Reference;
  readonly credential: RegistryCredential;
  readonly provider: CredentialProvider;
  /** The credential as its secret holds it; absent: it is none of a secret, and cannot be sealed. */
  readonly value?: Redacted<string>;
}

export interface DeliveryRule {
  /** What the workspace's policy says. */
  readonly wanted: "minted" | "sealed";
  /** The registry refused what was minted before. */
  readonly anew: boolean;
  /** The end of what the worker has, while that is good: it is better off waiting than with the credential itself. */
  readonly hasUntil?: Date | undefined;
  /** The worker has the image, at least in part, and may have proved that it may: perhaps it needs nothing. */
  readonly known?: boolean | undefined;
  /**
   * It is for a start: what is delivered must prove that the workspace may have the image, and was got with the credential
   * itself no longer ago than so, in milliseconds. Absent: for what runs already.
   */
  readonly grantLifeMs?: number | undefined;
  /** Nobody waits for it any more. */
  readonly signal?: AbortSignal | undefined;
}

/** What goes to the worker. */
export interface Delivery {
  readonly delivery: CredentialDelivery;
  /** Absent: nothing, as the registry asks for nothing, or nothing yet (`minted`): the worker asks when it needs something. */
  readonly text?: Redacted<string>;
  readonly scope?: string;
  readonly validUntil?: Date;
  readonly renewAt?: Date;
  readonly sealedReason?: string;
  /** The registry said, asked with what is delivered, that the image may be had. */
  readonly accessProved?: boolean;
  /** How long ago what is delivered was got with the credential itself; absent: it is that, or nothing. */
  readonly provedAgoMs?: number;
}

/**
 * Mints what a worker needs, or gives the credential itself: where the policy says so, where the registry takes nothing
 * else, and where it cannot be asked from here (from the worker it may be). What the registry or the issuer refuses is
 * refused here: the worker would only hear the same.
 *
 * @throws RegistryError, CredentialError
 */
export async function deliver(
  registry: Pick<RegistryClient, "mintPull" | "mintedPull">,
  what: Deliverable,
  rule: DeliveryRule,
  now: () => number = Date.now,
): Promise<Delivery> {
  const { reference, provider } = what;
  const { grantLifeMs: withinMs } = rule;
  const seal = sealer(what);
  if (rule.wanted === "sealed" && seal !== undefined) return seal();
  if (rule.known === true && withinMs !== 0) {
    // A known image starts without a question to the registry while a proof counts, the worker's or ours.
    const made = registry.mintedPull(reference, provider);
    if (made === "over") return { delivery: "minted" };
    const counts = withinMs === undefined || now() - Number(made?.provedAt) < withinMs;
    if (made !== undefined && counts) return deliveryOf(made, reference, now());
  }
  const signals = [AbortSignal.timeout(mintTimeoutMs), ...(rule.signal === undefined ? [] : [rule.signal])];
  let minted: Minted;
  try {
    const mint = (options: MintOptions) =>
      registry.mintPull(reference, provider, AbortSignal.any(signals), options);
    minted = await mint({ anew: rule.anew, ...(withinMs === undefined ? {} : { withinMs }) });
    // A worker that asks a little early would ask again for half of the rest.
    const same = isMade(minted) && minted.validUntil.getTime() === rule.hasUntil?.getTime();
    if (same) minted = await mint({ early: true });
  } catch (thrown) {
    rule.signal?.throwIfAborted();
    const error = thrown instanceof DOMException ? tooLate(reference) : thrown;
    if (rule.hasUntil !== undefined || !mayPass(error)) throw error;
    if (seal === undefined) {
      // The worker knows whether its last proof counts still.
      if (rule.known === true && withinMs !== 0) return { delivery: "minted" };
      throw withinMs === undefined ? error : unproved(error, reference);
    }
    const sealedReason = `nothing was minted: ${error.message}`;
    return seal({ sealedReason, renewAt: new Date(now() + tryAgainInMs) });
  }
  if (isMade(minted)) return deliveryOf(minted, reference, now());
  const unasked = minted === "unasked";
  const sealedReason = unasked
    ? `${reference.registry} did not ask for a credential so far`
    : `${reference.registry} takes nothing but the credential itself`;
  if (seal !== undefined) return seal({ sealedReason });
  if (unasked) return { delivery: "none" };
  throw new CredentialError("provider_failed", `${sealedReason}, which must not leave the control plane`, {
    next: "Store a credential for this registry that a worker may have: see `oci-node secret create`.",
  });
}

function isMade(minted: Minted): minted is MintedPull {
  return minted !== undefined && minted !== "unasked";
}

function sealer({ credential, value }: Deliverable) {
  if (value === undefined || !canBeSealed(credential)) return undefined;
  return (more: Pick<Delivery, "sealedReason" | "renewAt"> = {}): Delivery => ({
    delivery: "sealed",
    text: value,
    scope: "everything that the credential may",
    ...more,
  });
}

function deliveryOf(
  { authorization, validUntil, scope, proved, provedAt }: MintedPull,
  { registry, digest }: Reference,
  nowMs: number,
): Delivery {
  const renewAt = new Date(nowMs + Math.max(0, validUntil.getTime() - nowMs) / 2);
  const accessProved = proved.manifest === digest;
  const provedAgoMs = Math.max(0, nowMs - provedAt.getTime());
  const text = marshalMinted(registry, authorization);
  return { delivery: "minted", text, scope, validUntil, renewAt, accessProved, provedAgoMs };
}

const answers: ReadonlySet<RegistryErrorCode> = new Set<RegistryErrorCode>([
  "unauthorized",
  "expired",
  "denied",
  "not_found",
  // With the credential itself a worker would log in once more, where it is that which is held back.
  "rate_limited",
]);

/** Whether nobody said no: then a worker that asks may hear something else. */
function mayPass(thrown: unknown): thrown is RegistryError | CredentialError {
  if (thrown instanceof CredentialError) return thrown.code === "provider_unreachable";
  return thrown instanceof RegistryError && !answers.has(thrown.code);
}

function tooLate({ registry, repository }: Reference): RegistryError {
  return new RegistryError(
    "timeout",
    `${registry} gave no authorization within ${mintTimeoutMs} ms`,
    { registry, repository },
    { next: "Check that the control plane reaches the registry." },
  );
}
