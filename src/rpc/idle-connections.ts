import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";

interface State {
  /** Requests whose answer has not ended. */
  busy: number;
  /** `performance.now()` when there was the last one, or the connection began. */
  since: number;
}

/**
 * Ends HTTP/1.1 connections on which no request has come for a while, or half of one: each holds a descriptor, and strangers can open
 * as many as they like. Bun 1.4.5 applies none of node:http's own timeouts to connections that a server is given by `emit`, nor to
 * those over TLS.
 */
export class IdleConnections {
  readonly #patienceMs: number;
  readonly #states = new Map<Socket, State>();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(patienceMs: number) {
    this.#patienceMs = patienceMs;
    this.#timer = setInterval(() => this.#sweep(), Math.max(10, patienceMs / 4));
    this.#timer.unref();
  }

  opened(socket: Socket): void {
    if (this.#states.has(socket)) return;
    this.#states.set(socket, { busy: 0, since: performance.now() });
    socket.once("close", () => this.#states.delete(socket));
  }

  /** It speaks something else than HTTP/1.1. */
  leave(socket: Socket): void {
    this.#states.delete(socket);
  }

  /** A request's head has come. One of a connection that was not told of is left alone. */
  began(request: IncomingMessage, response: ServerResponse): void {
    const state = request.httpVersionMajor === 1 ? this.#states.get(request.socket) : undefined;
    if (state === undefined) return;
    state.busy += 1;
    response.once("close", () => {
      state.busy -= 1;
      state.since = performance.now();
    });
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #sweep(): void {
    const before = performance.now() - this.#patienceMs;
    for (const [socket, { busy, since }] of this.#states) if (busy === 0 && since < before) socket.destroy();
  }
}
