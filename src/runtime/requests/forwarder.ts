import { Agent, type IncomingMessage } from "node:http";
import type { RequestBody } from "../../std/request-body.ts";
import { ExchangeError, exchange, type Peer } from "./http-exchange.ts";

/**
 * Why a container was not given a request, of which it has nothing:
 * - `absent` it is not here, or does not listen yet
 * - `draining` it takes none any more
 * - `busy` it has as many as it may have at once
 * - `unreachable` it does not accept connections
 */
export const refusals = ["absent", "draining", "busy", "unreachable"] as const;
export type Refusal = (typeof refusals)[number];

export interface ForwardRequest {
  readonly containerId: string;
  readonly method: string;
  readonly path: string;
  /** Names and values in turn; of the message, not of a connection. */
  readonly headers: readonly string[];
  readonly body: RequestBody;
  readonly signal: AbortSignal;
}

/** The container's own answer, body unread, or why it was not asked. */
export type Forwarded =
  | { readonly kind: "answer"; readonly answer: IncomingMessage }
  | { readonly kind: "refused"; readonly why: Refusal };

/** Hands requests to containers: those of this host, or those of another through its worker. */
export interface Forwarding {
  /** @throws ExchangeError `broken` */
  forward(request: ForwardRequest): Promise<Forwarded>;
}

interface Serving extends Peer {
  readonly concurrency: number;
  inFlight: number;
  draining: boolean;
  /** Called when no request is left. */
  idle: (() => void) | undefined;
}

/**
 * How long an unused connection to a program is kept. Less than what servers close theirs after (gunicorn 2 s, uvicorn and node
 * 5 s): a request that is sent while the other end closes may have been begun, and could not be sent again.
 */
const idleConnectionMs = 1_000;

/** How long answers of a container that has ended may take until they are here. */
const lastAnswersMs = 2_000;

/** The containers of this host that serve HTTP, and the requests that they have. */
export class Forwarder implements Forwarding {
  readonly #serving = new Map<string, Serving>();
  #leaving = false;

  /** A container listens from now on. */
  add(
    containerId: string,
    at: { readonly host: string; readonly port: number; readonly concurrency: number },
  ): void {
    const agent = new Agent({ keepAlive: true, timeout: idleConnectionMs });
    this.#serving.set(containerId, { ...at, agent, inFlight: 0, draining: false, idle: undefined });
  }

  /** A container has ended. */
  remove(containerId: string): void {
    const serving = this.#serving.get(containerId);
    if (serving === undefined) return;
    this.#serving.delete(containerId);
    // What it said last may be on its way yet.
    for (const sockets of Object.values(serving.agent.freeSockets))
      for (const socket of sockets ?? []) socket.destroy();
    setTimeout(() => serving.agent.destroy(), lastAnswersMs).unref();
    serving.idle?.();
  }

  /** Gives a container no request any more. Resolves when it has none, at the latest after `timeoutMs`. */
  async drain(containerId: string, timeoutMs: number): Promise<void> {
    const serving = this.#serving.get(containerId);
    if (serving === undefined) return;
    serving.draining = true;
    if (serving.inFlight === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      const before = serving.idle;
      serving.idle = () => {
        before?.();
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /**
   * Gives no container a request any more: they wait for the next process of this host. Resolves when none is left, at the
   * latest after `timeoutMs`.
   */
  async leave(timeoutMs: number): Promise<void> {
    this.#leaving = true;
    await Promise.all([...this.#serving.keys()].map((id) => this.drain(id, timeoutMs)));
  }

  inFlight(containerId: string): number {
    return this.#serving.get(containerId)?.inFlight ?? 0;
  }

  async forward(request: ForwardRequest): Promise<Forwarded> {
    const serving = this.#serving.get(request.containerId);
    if (serving === undefined) return refused("absent");
    // The next process takes them soon: sooner than what drains is looked at again.
    if (this.#leaving) return refused("unreachable");
    if (serving.draining) return refused("draining");
    if (serving.inFlight >= serving.concurrency) return refused("busy");
    serving.inFlight++;
    try {
      const answer = await exchange(serving, request);
      answer.once("close", () => leave(serving));
      return { kind: "answer", answer };
    } catch (error) {
      leave(serving);
      if (error instanceof ExchangeError && error.code === "not_begun" && !request.signal.aborted)
        return refused("unreachable");
      throw error;
    }
  }
}

function refused(why: Refusal): Forwarded {
  return { kind: "refused", why };
}

function leave(serving: Serving): void {
  serving.inFlight--;
  if (serving.inFlight === 0) serving.idle?.();
}
