import * as http from "node:http";
import * as https from "node:https";
import type { ConnectionOptions } from "node:tls";
import { CodedError, errnoOf } from "../../std/error.ts";
import type { RequestBody } from "../../std/request-body.ts";

export type ExchangeErrorCode = "not_begun" | "broken";

/**
 * A request that was not answered.
 * - `not_begun` the other end has nothing of it: it may go elsewhere
 * - `broken` the other end may have begun with it
 */
export class ExchangeError extends CodedError<ExchangeErrorCode> {
  override readonly name = "ExchangeError";
}

/** Where requests go, over connections that are kept for a while. */
export interface Peer {
  readonly host: string;
  readonly port: number;
  readonly agent: http.Agent;
  /** `servername` and what else TLS needs; absent: none. */
  readonly tls?: ConnectionOptions;
}

export interface ExchangeRequest {
  readonly method: string;
  /** As it is sent. */
  readonly path: string;
  /** Names and values in turn, without `Content-Length`, `Transfer-Encoding` and `Expect`. */
  readonly headers: readonly string[];
  readonly body: RequestBody;
  /** Breaks it off, and its answer too. */
  readonly signal: AbortSignal;
  /** Whether a body that cannot be sent twice is sent only when the other end asks for it (RFC 9110, 10.1.1). */
  readonly askFirst?: boolean;
}

/** Of answers before the answer (RFC 9110, 15.2), which nobody gets and nothing holds back. */
const hintsMax = 100;

/** What may be sent a second time without harm (RFC 9110, 9.2.2). */
const idempotent: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]);

/**
 * Sends a request over HTTP/1.1 and gives the answer with its body unread. Names and order of the fields, the path and both bodies
 * are left as they are; nothing is followed, decompressed or kept whole.
 *
 * A connection that was used before and is closed without a byte of an answer was closed as idle, most likely: what is
 * idempotent is sent again over another one.
 *
 * @throws ExchangeError
 */
export async function exchange(peer: Peer, request: ExchangeRequest): Promise<http.IncomingMessage> {
  const first = await once(peer, request, peer.agent);
  if (first !== "stale") return first;
  const second = await once(peer, request, false);
  if (second !== "stale") return second;
  throw new ExchangeError("broken", "the connection was closed without an answer");
}

function once(
  peer: Peer,
  request: ExchangeRequest,
  agent: http.Agent | false,
): Promise<http.IncomingMessage | "stale"> {
  const { method, body, signal } = request;
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(new ExchangeError("not_begun", "the request was given up"));
      return;
    }
    const whole = body.whole;
    const ask = request.askFirst === true && whole === undefined;
    const out = (peer.tls === undefined ? http : https).request({
      ...peer.tls,
      host: peer.host,
      port: peer.port,
      agent,
      method,
      path: request.path,
      setHost: false,
      headers: [...request.headers, ...framing(body, method), ...(ask ? ["Expect", "100-continue"] : [])],
    } as http.RequestOptions);
    let connected = false;
    let sent = false;
    const leave = (): void => void out.destroy();
    signal.addEventListener("abort", leave, { once: true });
    out.once("close", () => signal.removeEventListener("abort", leave));
    const send = (): void => {
      connected = true;
      if (sent || ask) return;
      sent = true;
      body.sendTo(out);
    };
    out.once("socket", (socket) => {
      if (!socket.connecting) send();
      else socket.once(peer.tls === undefined ? "connect" : "secureConnect", send);
    });
    out.once("continue", () => {
      if (sent) return;
      sent = true;
      body.sendTo(out);
    });
    let hints = 0;
    out.on("information", () => {
      hints += 1;
      if (hints <= hintsMax) return;
      reject(new ExchangeError("broken", "the program gave hints in place of an answer"));
      out.destroy();
    });
    out.once("response", (answer) => {
      // What is said without having asked for the body: the connection would still owe it.
      if (ask && !sent) out.shouldKeepAlive = false;
      answer.once("end", () => signal.removeEventListener("abort", leave));
      answer.once("close", () => {
        if (!out.writableEnded) out.destroy();
      });
      resolve(answer);
    });
    out.once("upgrade", (_, socket) => {
      socket.destroy();
      reject(new ExchangeError("broken", "the program wanted to speak something else than HTTP"));
    });
    out.on("error", (error) => {
      const again = out.reusedSocket && body.repeatable && idempotent.has(method) && !signal.aborted;
      if (again && isClosed(error)) resolve("stale");
      else reject(failure(error, connected));
    });
    // With the head, where nothing is to be waited for: one packet.
    if (whole !== undefined) {
      sent = true;
      body.sendTo(out);
    } else {
      out.flushHeaders();
    }
  });
}

function framing(body: RequestBody, method: string): string[] {
  const length = body.whole?.length ?? body.lengthBytes;
  if (length === undefined) return ["Transfer-Encoding", "chunked"];
  // Nothing: only methods for which a body would be expected say so (RFC 9110, 8.6).
  if (length === 0 && !["POST", "PUT", "PATCH"].includes(method)) return [];
  return ["Content-Length", String(length)];
}

function isClosed(error: unknown): boolean {
  return ["ECONNRESET", "EPIPE"].includes(errnoOf(error) ?? "");
}

function failure(error: unknown, connected: boolean): ExchangeError {
  const errno = errnoOf(error) ?? "failed";
  // Nothing was sent before the connection, and its TLS, stood.
  if (!connected) return new ExchangeError("not_begun", `there is no connection: ${errno}`, { cause: error });
  const what = errno.startsWith("HPE_")
    ? `what came is not HTTP (${errno})`
    : `the connection broke (${errno})`;
  return new ExchangeError("broken", what, { cause: error });
}
