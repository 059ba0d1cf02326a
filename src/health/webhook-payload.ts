import type { AlertBody, AlertKind } from "./alert.ts";

/** One alert as it goes to a webhook. */
export interface Told {
  /** The same at each attempt: receivers know repetitions by it. */
  readonly id: string;
  readonly kind: AlertKind | "test";
  readonly at: Date;
  readonly message: string;
  readonly body: AlertBody;
}

/** The body of a delivery: Standard Webhooks' `type`, `timestamp`, `data`. The same bytes at each attempt. */
export function webhookPayload({ kind, at, message, body }: Told): string {
  const { workspace, secret, registry, state, reason, code, next, since } = body;
  return JSON.stringify({
    type: kind === "test" ? "test" : `secret.${kind}`,
    timestamp: at.toISOString(),
    data: {
      message,
      workspace,
      secret,
      registry,
      state,
      reason,
      code,
      next,
      since,
      expires_at: body.expiresAt,
      images: body.images,
      images_total: body.imagesTotal,
      containers: body.containers,
      containers_total: body.containersTotal,
    },
  });
}

/** What `webhook test` sends: an alert that is nobody's. */
export function testAlert(id: string, workspace: string, at: Date): Told {
  const time = at.toISOString();
  return {
    id,
    kind: "test",
    at,
    message: `A test from the workspace ${workspace}: this webhook works. There is nothing to do.`,
    body: {
      workspace,
      secret: { id: "00000000-0000-0000-0000-000000000000", name: "test", version: 1 },
      registry: "registry.example",
      state: "ok",
      reason: null,
      code: null,
      next: null,
      since: time,
      expiresAt: null,
      images: [],
      imagesTotal: 0,
      containers: [],
      containersTotal: 0,
    },
  };
}
