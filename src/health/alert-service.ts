import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  AlertSchema,
  type HealthService,
  WebhookSchema,
  type Webhook as WireWebhook,
} from "../gen/oci_node/v1/health_service_pb.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { newSigningSecret, type WebhookVault } from "../secret/webhook-vault.ts";
import type { WorkspaceStore } from "../secret/workspace-store.ts";
import { Redacted } from "../std/redacted.ts";
import type { AlertStore } from "./alert-store.ts";
import { type Sending, sendToWebhook } from "./delivery.ts";
import type { Webhook } from "./webhook.ts";
import { testAlert } from "./webhook-payload.ts";
import type { WebhookStore } from "./webhook-store.ts";

export interface AlertDependencies extends Sending {
  readonly alerts: AlertStore;
  readonly webhookStore: WebhookStore;
  readonly vault: WebhookVault;
  readonly workspaces: Pick<WorkspaceStore, "get">;
}

type AlertMethods = Pick<
  ServiceImpl<typeof HealthService>,
  "createWebhook" | "listWebhooks" | "deleteWebhook" | "testWebhook" | "listAlerts"
>;

const alertsUsual = 100;
const alertsMax = 1000;

/** The part of HealthService by which people are told. */
export function alertMethods(dependencies: AlertDependencies): AlertMethods {
  const { alerts, webhookStore, webhooks, vault, workspaces } = dependencies;
  return {
    async createWebhook(request, context) {
      const workspaceId = workspaceOf(context);
      const url = new Redacted(request.url);
      const { host } = await webhooks.check(url, context.signal);
      const place = { workspaceId, id: randomUUID() };
      const signingSecret = newSigningSecret();
      const webhook = await webhookStore.insert(
        { ...place, host },
        await vault.seal(place, url, signingSecret),
      );
      return { webhook: wireWebhook(webhook), signingSecret };
    },
    async listWebhooks(_, context) {
      return { webhooks: (await webhookStore.list(workspaceOf(context))).map(wireWebhook) };
    },
    async deleteWebhook({ id }, context) {
      await webhookStore.remove(workspaceOf(context), id);
      return {};
    },
    async testWebhook({ id }, context) {
      const workspaceId = workspaceOf(context);
      const sealed = await webhookStore.sealed(workspaceId, id);
      const { name } = await workspaces.get(workspaceId);
      const told = testAlert(randomUUID(), name, new Date());
      const { status } = await sendToWebhook(dependencies, { workspaceId, id }, sealed, told, context.signal);
      return { status };
    },
    async listAlerts({ limit }, context) {
      const wanted = limit <= 0 ? alertsUsual : Math.min(limit, alertsMax);
      const told = await alerts.list(workspaceOf(context), wanted);
      return {
        alerts: told.map((alert) =>
          create(AlertSchema, {
            id: alert.id,
            at: timestampFromDate(alert.createdAt),
            secretName: alert.secretName,
            secretId: alert.secretId,
            kind: alert.kind,
            message: alert.message,
          }),
        ),
      };
    },
  };
}

function wireWebhook(webhook: Webhook): WireWebhook {
  const { id, host, createdAt, lastDeliveredAt, disabledAt, lastError, pending, givenUp } = webhook;
  return create(WebhookSchema, {
    id,
    host,
    createdAt: timestampFromDate(createdAt),
    ...(lastDeliveredAt === null ? {} : { lastDeliveredAt: timestampFromDate(lastDeliveredAt) }),
    ...(disabledAt === null ? {} : { disabledAt: timestampFromDate(disabledAt) }),
    lastError: lastError ?? "",
    pending,
    givenUp,
  });
}
