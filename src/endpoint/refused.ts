import { CodedError } from "../std/error.ts";

/**
 * - `not_found` there is no such endpoint, or not for this caller
 * - `token_needed` it takes a token of its workspace
 * - `permission_denied` the token's role may not call endpoints
 * - `bad_request` the request cannot be passed on as it is
 * - `upgrade` WebSocket and the like
 * - `body_too_large` more than the endpoint takes
 * - `queue_full` as many requests wait as may
 * - `timeout` the endpoint's time for a request is over
 * - `not_starting` its containers do not come up
 * - `broken` the container had the request, and did not answer
 * - `handler_failed` the function threw
 * - `unavailable` this gateway cannot tell now where requests go
 */
export type RefusedCode =
  | "not_found"
  | "token_needed"
  | "permission_denied"
  | "bad_request"
  | "upgrade"
  | "body_too_large"
  | "queue_full"
  | "timeout"
  | "not_starting"
  | "broken"
  | "handler_failed"
  | "unavailable";

const statuses: Readonly<Record<RefusedCode, number>> = {
  not_found: 404,
  token_needed: 401,
  permission_denied: 403,
  bad_request: 400,
  upgrade: 501,
  body_too_large: 413,
  queue_full: 503,
  timeout: 504,
  not_starting: 502,
  broken: 502,
  handler_failed: 500,
  unavailable: 503,
};

/** What is told to those who are not of the workspace: nothing of what runs there, or why it does not. */
const told: Partial<Readonly<Record<RefusedCode, string>>> = {
  not_starting: "the endpoint does not come up",
  broken: "the endpoint did not answer",
  handler_failed: "the handler failed",
  unavailable: "the gateway cannot pass requests on now",
};

/** A request that is not answered by a container. The message is for the workspace's own callers. */
export class Refused extends CodedError<RefusedCode> {
  override readonly name = "Refused";
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    code: RefusedCode,
    message: string,
    options: {
      readonly next?: string;
      readonly cause?: unknown;
      readonly headers?: Readonly<Record<string, string>>;
    } = {},
  ) {
    super(code, message, options);
    this.headers = options.headers ?? {};
  }

  get status(): number {
    return statuses[this.code];
  }

  /** JSON for the caller. @param insider whether he is of the endpoint's workspace */
  body(id: string | undefined, insider: boolean): string {
    const { code, next } = this;
    const message = (insider ? undefined : told[code]) ?? this.message;
    const shown = insider || told[code] === undefined ? next : undefined;
    return `${JSON.stringify({ error: { code, message, ...(shown === undefined ? {} : { next: shown }), id } })}\n`;
  }
}
