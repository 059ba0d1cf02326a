import { createHmac, timingSafeEqual } from "node:crypto";

/** A delivery as it came. */
export interface Received {
  readonly path: string;
  readonly headers: Headers;
  readonly body: string;
  /** Whether the signature is right, by Standard Webhooks, worked out here on its own. */
  readonly signed: boolean;
}

type Answer = (received: Received, count: number) => Response | Promise<Response>;

/** A receiver of webhooks on loopback. */
export interface Receiver {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly received: readonly Received[];
  /** What signs deliveries by their path; set once the webhook is made. */
  readonly secrets: Map<string, string>;
  answer: Answer;
  /** Resolves once so many came. */
  waitFor(count: number): Promise<readonly Received[]>;
  stop(): Promise<void>;
}

export function startReceiver(): Receiver {
  const received: Received[] = [];
  const secrets = new Map<string, string>();
  let waiters: { count: number; done: () => void }[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      const path = new URL(request.url).pathname;
      const body = await request.text();
      const one = {
        path,
        headers: request.headers,
        body,
        signed: isSigned(request.headers, body, secrets.get(path)),
      };
      received.push(one);
      waiters = waiters.filter(({ count, done }) => received.length < count || done());
      return await receiver.answer(one, received.filter((other) => other.path === path).length);
    },
  });
  const receiver: Receiver = {
    host: `127.0.0.1:${server.port}`,
    received,
    secrets,
    answer: () => new Response(null, { status: 204 }),
    waitFor: (count) =>
      new Promise((resolve) => {
        if (received.length >= count) resolve(received);
        else waiters.push({ count, done: () => resolve(received) });
      }),
    stop: () => server.stop(true),
  };
  return receiver;
}

function isSigned(headers: Headers, body: string, secret: string | undefined): boolean {
  if (secret === undefined) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const text = `${headers.get("webhook-id")}.${headers.get("webhook-timestamp")}.${body}`;
  const expected = Buffer.from(`v1,${createHmac("sha256", key).update(text).digest("base64")}`);
  const given = Buffer.from(headers.get("webhook-signature") ?? "");
  const fresh = Math.abs(Date.now() / 1000 - Number(headers.get("webhook-timestamp"))) < 300;
  return key.length === 32 && fresh && given.length === expected.length && timingSafeEqual(given, expected);
}
