import type { Redacted } from "../std/redacted.ts";
import { Addresses, type ResolveHost } from "./addresses.ts";
import { Egress } from "./egress.ts";
import { RegistryError, type RegistryErrorCode, type Where } from "./error.ts";
import type { ResolvedPolicy } from "./policy.ts";
import { parseRetryAfter } from "./retry.ts";
import { checkDestination, findRoutes } from "./route.ts";

/** All that is told of a receiver's answer. */
export interface WebhookAnswer {
  readonly status: number;
  /** How long its `Retry-After` asks to wait. */
  readonly retryAfterMs: number | undefined;
}

/** The way to addresses that tenants name for their webhooks. */
export interface WebhookPost {
  /**
   * The host of an address that may be sent to, as it stands now.
   * @throws RegistryError `egress_refused`, `unreachable`; names the host at most
   */
  check(url: Redacted<string>, signal: AbortSignal): Promise<{ readonly host: string }>;
  /**
   * One POST. Redirects are not followed, and nothing of the answer's body is read.
   * @throws RegistryError `egress_refused`, `unreachable`, `tls`, `timeout`; names the host at most
   */
  post(
    url: Redacted<string>,
    headers: Readonly<Record<string, string>>,
    body: string,
    signal: AbortSignal,
  ): Promise<WebhookAnswer>;
}

const urlBytesMax = 2048;
const answerTimeoutMs = 10_000;

/** What is told of a receiver in the registry's words where those would mislead. */
const next: Partial<Record<RegistryErrorCode, string>> = {
  egress_refused: "Use the HTTPS address of a host on the public internet, without a user name in it.",
  unreachable: "Check the address and that its receiver runs.",
};

/**
 * The way to webhooks: HTTPS to public addresses, as the egress judges them; the operator's settings of a host count here, too.
 * Each request has an {@link Egress} of its own: a receiver that hangs or fails must not slow down a registry on the same
 * host, nor another workspace's receiver, and its address is looked up and judged anew each time.
 */
export function webhookPost(options: {
  readonly policy: ResolvedPolicy;
  readonly userAgent: string;
  readonly resolveHost: ResolveHost | undefined;
  readonly now: () => number;
}): WebhookPost {
  // Nobody else waits for this host here: no probes.
  const policy = { ...options.policy, requestTimeoutMs: answerTimeoutMs, silentAfterMs: 2 * answerTimeoutMs };
  return {
    async check(redacted, signal) {
      const { url, where } = parse(redacted);
      try {
        checkDestination({ url, where }, policy);
        await findRoutes(
          { url, where },
          policy,
          new Addresses(options.resolveHost, options.now, answerTimeoutMs),
          signal,
        );
        return { host: url.host };
      } catch (error) {
        throw ofReceiver(error, where);
      }
    },
    async post(redacted, headers, body, signal) {
      const { url, where } = parse(redacted);
      try {
        const answer = await new Egress({ ...options, policy }).send({
          method: "POST",
          url,
          headers: { "Content-Type": "application/json", ...headers },
          body,
          where,
          // A short body is read away after the head, but not for long.
          signal: AbortSignal.any([signal, AbortSignal.timeout(2 * answerTimeoutMs)]),
          timeoutMs: answerTimeoutMs,
          headTimeoutMs: answerTimeoutMs,
          idleTimeoutMs: 1_000,
        });
        const { status } = answer;
        const retryAfterMs = parseRetryAfter(answer.headers.get("retry-after"), options.now());
        answer.discard();
        return { status, retryAfterMs };
      } catch (error) {
        throw ofReceiver(error, where);
      }
    },
  };
}

function parse(redacted: Redacted<string>): { url: URL; where: Where } {
  const text = redacted.expose();
  const unknown = { registry: "the webhook", repository: "" };
  if (Buffer.byteLength(text) > urlBytesMax)
    throw refusal(unknown, `the address of the webhook has more than ${urlBytesMax} bytes`);
  const url = URL.parse(text);
  if (url === null || url.host === "") throw refusal(unknown, "the address of the webhook is not a URL");
  url.hash = "";
  return { url, where: { registry: url.host, repository: "" } };
}

function refusal(where: Where, message: string): RegistryError {
  return new RegistryError("egress_refused", message, where, { next: next.egress_refused });
}

function ofReceiver(error: unknown, where: Where): unknown {
  if (!(error instanceof RegistryError)) return error;
  const hint = next[error.code];
  return hint === undefined ? error : new RegistryError(error.code, error.message, where, { next: hint });
}
