import { RegistryError } from "../registry/error.ts";
import type { WebhookAnswer, WebhookPost } from "../registry/webhook-post.ts";
import { SecretError } from "../secret/error.ts";
import {
  type SealedWebhook,
  signWebhook,
  type WebhookPlace,
  type WebhookVault,
} from "../secret/webhook-vault.ts";
import { type Told, webhookPayload } from "./webhook-payload.ts";

/** What sending to webhooks needs. */
export interface Sending {
  readonly vault: Pick<WebhookVault, "open">;
  readonly webhooks: WebhookPost;
}

/**
 * One attempt: signed by Standard Webhooks, over the registry room's way out.
 * @throws RegistryError, SecretError `undecryptable`; the signal's reason
 */
export async function sendToWebhook(
  { vault, webhooks }: Sending,
  place: WebhookPlace,
  sealed: SealedWebhook,
  told: Told,
  signal: AbortSignal,
): Promise<WebhookAnswer> {
  const { url, signingSecret } = await vault.open(place, sealed);
  const body = webhookPayload(told);
  const headers = signWebhook(signingSecret, told.id, Math.floor(Date.now() / 1000), body);
  return await webhooks.post(url, headers, body, signal);
}

/** What is said of a failed attempt; of what is not ours, nothing but that. */
export function problemOf(error: unknown): string {
  return error instanceof RegistryError || error instanceof SecretError
    ? error.message
    : "the delivery failed unexpectedly";
}

export const isTaken = ({ status }: WebhookAnswer): boolean => status >= 200 && status < 300;
