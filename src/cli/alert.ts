import { readFileSync } from "node:fs";
import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { HealthService, type Webhook } from "../gen/oci_node/v1/health_service_pb.ts";
import { command, words } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { ago, note, printJson, printLine, printTable } from "./output.ts";
import { dateOf } from "./shape.ts";

const health = () => createClient(HealthService, connectTransport());
const webhookId = words({ placeholder: "ID", brief: "Id of the webhook, from `alert webhook ls`" });

const list = command<{ json: boolean; limit: number }>({
  brief: "List what was told of the workspace's secrets, the latest first",
  fullDescription:
    "A secret is told of when its registry or issuer refuses it (failing), when it works again (recovered), and 14, 3 and 1 " +
    "days before it ends (expiring).",
  flags: {
    limit: {
      kind: "parsed",
      parse: parseLimit,
      default: "20",
      brief: "How many at most (up to 1000)",
      placeholder: "N",
    },
  },
  async run(flags) {
    const { alerts } = await health().listAlerts({ limit: flags.limit });
    if (flags.json) {
      printJson(
        alerts.map(({ id, at, kind, secretName, secretId, message }) => ({
          id,
          at: dateOf(at)?.toISOString() ?? null,
          kind,
          secretName,
          secretId,
          message,
        })),
      );
      return 0;
    }
    for (const { at, kind, message } of alerts) printLine(`${ago(dateOf(at))} ago  ${kind}\n  ${message}`);
    if (alerts.length === 0) note("nothing was told yet");
    return 0;
  },
});

function parseLimit(text: string): number {
  const limit = Number(text);
  if (Number.isInteger(limit) && limit >= 1 && limit <= 1000) return limit;
  throw new SyntaxError("must be a number from 1 to 1000");
}

const add = command<{ json: boolean }, [string]>({
  brief: "Send alerts to an address from now on; prints what signs them, this once",
  fullDescription:
    "Alerts are sent to the address as JSON by POST, signed as Standard Webhooks says (webhook-id, webhook-timestamp, " +
    "webhook-signature). It must be HTTPS on the public internet, unless the operator allows its host. What is not taken with " +
    "a status of 2xx is sent again for a day; 410 ends it. Addresses often hold a token: with `-` it is read from standard input.",
  positional: words({ placeholder: "URL", brief: "Where to send; `-`: the first line of standard input" }),
  async run(flags, text) {
    const url = text === "-" ? (readFileSync(0, "utf8").split("\n", 1)[0] ?? "").trim() : text;
    const { webhook, signingSecret } = await health().createWebhook({ url });
    if (webhook === undefined) throw new CliError("failed", "the node made no webhook");
    if (flags.json) {
      printJson({ ...webhookShape(webhook), signingSecret });
      return 0;
    }
    printLine(webhook.id);
    printLine(signingSecret);
    note(`note: the second line signs what is sent to ${webhook.host}; it is not shown again.`);
    note(`To try it: oci-node alert webhook test ${webhook.id}`);
    return 0;
  },
});

const webhookList = command<{ json: boolean }>({
  brief: "List webhooks; of an address only its host is shown",
  async run(flags) {
    const { webhooks } = await health().listWebhooks({});
    if (flags.json) {
      printJson(webhooks.map(webhookShape));
      return 0;
    }
    printTable(
      ["ID", "HOST", "STATE", "DELIVERED", "PENDING", "GIVEN UP", "LAST ERROR"],
      webhooks.map((webhook) => [
        webhook.id,
        webhook.host,
        webhook.disabledAt === undefined ? "enabled" : "disabled",
        webhook.lastDeliveredAt === undefined ? "never" : `${ago(dateOf(webhook.lastDeliveredAt))} ago`,
        String(webhook.pending),
        String(webhook.givenUp),
        webhook.lastError,
      ]),
    );
    return 0;
  },
});

const remove = command<{ json: boolean }, [string]>({
  brief: "Remove a webhook, with what is on its way there",
  positional: webhookId,
  async run(flags, id) {
    await health().deleteWebhook({ id });
    if (flags.json) printJson({ removed: id });
    else printLine(id);
    return 0;
  },
});

const test = command<{ json: boolean }, [string]>({
  brief: "Send a made-up alert now and tell what its receiver answers",
  positional: webhookId,
  async run(flags, id) {
    const { status } = await health().testWebhook({ id });
    const taken = status >= 200 && status < 300;
    if (flags.json) printJson({ id, status, taken });
    else printLine(taken ? `taken: ${status}` : `not taken: the receiver answers ${status}`);
    return taken ? 0 : 1;
  },
});

function webhookShape(webhook: Webhook) {
  const time = (at: Webhook["createdAt"]) => dateOf(at)?.toISOString() ?? null;
  return {
    id: webhook.id,
    host: webhook.host,
    createdAt: time(webhook.createdAt),
    lastDeliveredAt: time(webhook.lastDeliveredAt),
    disabledAt: time(webhook.disabledAt),
    pending: webhook.pending,
    givenUp: webhook.givenUp,
    lastError: webhook.lastError || null,
  };
}

const webhookRoutes = buildRouteMap({
  routes: { add, ls: webhookList, rm: remove, test },
  docs: { brief: "Have alerts sent to addresses" },
});

export const alertRoutes = buildRouteMap({
  routes: { ls: list, webhook: webhookRoutes },
  docs: { brief: "What was told of secrets that fail or end, and whom it is told to" },
});
