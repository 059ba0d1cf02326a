import { z } from "zod";
import { CredentialError } from "./error.ts";
import { passwordPair } from "./password-pair.ts";
import { type PluginApiVersion, pluginApiVersions } from "./plugin-answer.ts";
import type { HandedOut } from "./wire.ts";

/** What the kubelet asks its credential provider plugins (`CredentialProviderRequest`). */
export interface KubeletRequest {
  readonly apiVersion: PluginApiVersion;
  /** `HOST[:PORT]/REPOSITORY`, without tag and digest. */
  readonly image: string;
  /** The kubelet gave a service account's token along; it plays no part in what we answer. */
  readonly withToken: boolean;
}

export interface KubeletCredential extends HandedOut {
  readonly registry: string;
  /** Empty: it is good for all of the registry. */
  readonly repository: string;
  readonly validUntil: Date | undefined;
}

const requestSchema = z.object({
  apiVersion: z.enum(pluginApiVersions),
  kind: z.literal("CredentialProviderRequest"),
  image: z.string().min(1).max(1024),
  serviceAccountToken: z.string().nullish(),
});

/** So long may a secret that was rotated, or a right that was withdrawn, go on at a kubelet. */
const keptMsMax = 3_600_000;
/** Of a credential that has no end. */
const unendingKeptMs = 60_000;
/** A pull that begins at the end of the time kept has this long. */
const marginMs = 15 * 60_000;

/** @throws CredentialError `bad_value`; the request may hold a token and is not quoted */
export function parseKubeletRequest(text: string): KubeletRequest {
  const parsed = requestSchema.safeParse(parseJson(text));
  if (!parsed.success) {
    const field = String(parsed.error.issues[0]?.path[0] ?? "the document");
    throw new CredentialError("bad_value", `not a CredentialProviderRequest: ${field} is wrong`, {
      next: `Let the kubelet call this, with one of the versions ${pluginApiVersions.join(", ")}.`,
    });
  }
  const { apiVersion, image, serviceAccountToken } = parsed.data;
  return { apiVersion, image, withToken: Boolean(serviceAccountToken) };
}

/**
 * The `CredentialProviderResponse`, in the version of the request, as the kubelet insists (k8s.io/kubelet,
 * pkg/apis/credentialprovider). Without a credential it names none and is not kept, so that a secret made later is found.
 *
 * @throws CredentialError `bad_value` for an identity token, which the kubelet cannot carry except to Azure
 */
export function kubeletResponse(
  request: KubeletRequest,
  credential: KubeletCredential | undefined,
  nowMs: number,
): object {
  const keptMs = credential === undefined ? 0 : keptMsOf(credential.validUntil, nowMs);
  const withType = request.withToken && request.apiVersion.endsWith("/v1");
  return {
    apiVersion: request.apiVersion,
    kind: "CredentialProviderResponse",
    cacheKeyType: credential === undefined || credential.repository !== "" ? "Image" : "Registry",
    cacheDuration: formatGoDuration(keptMs),
    // Required where the request carries such a token; only v1 knows the field.
    ...(withType ? { serviceAccountTokenCacheType: "ServiceAccount" } : {}),
    ...(credential === undefined ? {} : { auth: { [keyOf(credential)]: passwordPair(credential) } }),
  };
}

function keyOf({ registry, repository }: KubeletCredential): string {
  return repository === "" ? registry : `${registry}/${repository}`;
}

function keptMsOf(validUntil: Date | undefined, nowMs: number): number {
  if (validUntil === undefined) return unendingKeptMs;
  const leftMs = Math.max(0, validUntil.getTime() - nowMs);
  return Math.min(keptMsMax, leftMs - Math.min(marginMs, leftMs / 2));
}

/** As Go's `time.Duration` prints whole seconds: `1h0m0s`, `45m0s`, `0s`. */
function formatGoDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60), seconds % 60];
  if (h > 0) return `${h}h${m}m${s}s`;
  return m > 0 ? `${m}m${s}s` : `${s}s`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
