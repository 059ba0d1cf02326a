import { createHmac, randomBytes } from "node:crypto";
import { Redacted } from "../std/redacted.ts";
import { boundTo, decrypt, encrypt, keyBytes, keyIdOf, type Sealed, unwrapKey, wrapKey } from "./envelope.ts";
import { SecretError } from "./error.ts";
import type { WorkspaceStore } from "./workspace-store.ts";

/** A webhook's address and signing secret as they stand in its row. */
export interface SealedWebhook extends Sealed {
  /** The workspace key. */
  readonly keyId: string;
  readonly wrappedDataKey: Uint8Array;
}

/** Whose webhook it is; both are bound into what is sealed. */
export interface WebhookPlace {
  readonly workspaceId: string;
  readonly id: string;
}

/** What a delivery needs. */
export interface OpenWebhook {
  readonly url: Redacted<string>;
  readonly signingSecret: Redacted<string>;
}

const prefix = "whsec_";

/** 32 random bytes as Standard Webhooks writes a symmetric secret. Hand it over once and forget it. */
export function newSigningSecret(): string {
  return `${prefix}${randomBytes(32).toString("base64")}`;
}

/**
 * Addresses of webhooks and what signs deliveries to them. Addresses are sealed too: many carry a token in their path.
 * Sealed as a secret's value is: under a data key of its own, which the workspace's key wraps, bound to its row.
 */
export class WebhookVault {
  readonly #workspaces: Pick<WorkspaceStore, "key">;

  constructor(workspaces: Pick<WorkspaceStore, "key">) {
    this.#workspaces = workspaces;
  }

  /** @throws SecretError `not_found` when there is no such workspace */
  async seal(place: WebhookPlace, url: Redacted<string>, signingSecret: string): Promise<SealedWebhook> {
    const workspaceKey = await this.#workspaces.key(place.workspaceId);
    const dataKey = randomBytes(keyBytes);
    const value = Buffer.from(JSON.stringify([url.expose(), signingSecret]), "utf8");
    try {
      const keyId = keyIdOf(workspaceKey);
      const wrappedDataKey = wrapKey(workspaceKey, dataKey, aad("data key", place, keyId));
      return { keyId, wrappedDataKey, ...encrypt(dataKey, value, aad("value", place, keyId)) };
    } finally {
      for (const bytes of [workspaceKey, dataKey, value]) bytes.fill(0);
    }
  }

  /** @throws SecretError `undecryptable`, also for a row that was moved or changed */
  async open(place: WebhookPlace, sealed: SealedWebhook): Promise<OpenWebhook> {
    const workspaceKey = await this.#workspaces.key(place.workspaceId);
    const { keyId } = sealed;
    try {
      const dataKey = unwrapKey(workspaceKey, sealed.wrappedDataKey, aad("data key", place, keyId));
      const value = decrypt(dataKey, sealed, aad("value", place, keyId));
      const [url, signingSecret] = JSON.parse(value.toString("utf8")) as [string, string];
      for (const bytes of [dataKey, value]) bytes.fill(0);
      return { url: new Redacted(url), signingSecret: new Redacted(signingSecret) };
    } finally {
      workspaceKey.fill(0);
    }
  }
}

/**
 * The headers of a delivery by Standard Webhooks 1.0.0: HMAC-SHA256 over id, time and body.
 *
 * @param timestampS Unix time of this attempt
 */
export function signWebhook(
  signingSecret: Redacted<string>,
  id: string,
  timestampS: number,
  body: string,
): Record<string, string> {
  const text = signingSecret.expose();
  if (!text.startsWith(prefix)) throw new SecretError("bad_value", "a webhook's signing secret is not one");
  const key = Buffer.from(text.slice(prefix.length), "base64");
  const signature = createHmac("sha256", key).update(`${id}.${timestampS}.${body}`).digest("base64");
  key.fill(0);
  return {
    "webhook-id": id,
    "webhook-timestamp": String(timestampS),
    "webhook-signature": `v1,${signature}`,
  };
}

function aad(what: "data key" | "value", place: WebhookPlace, keyId: string): Uint8Array {
  return boundTo("oci-node", "v1", "webhook", what, place.workspaceId, place.id, keyId);
}
