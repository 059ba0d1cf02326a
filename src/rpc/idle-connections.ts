import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2Session, ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";

/** A session that was used is kept until its client closes it, as ours do after a quarter of an hour: by this many patiences. */
const usedPatiences = 20;

interface State {
  /** Requests whose answer has not ended. */
  busy: number;
  /** `performance.now()` when there was the last one, or the connection began. */
  since: number;
}

/**
 * Ends connections on which no request has come for a while, or half of one: each holds a descriptor, and strangers can open
 * as many as they like. Those of HTTP/2 that had one are ended by their clients, or much later. Bun 1.4.5 applies none of
 * node:http's own timeouts to connections that a server is given by `emit`, nor to those over TLS.
 */
export class IdleConnections {
  readonly #patienceMs: number;
  readonly #states = new Map<Socket, State>();
  readonly #sessions = new Map<Http2Session, State & { used: boolean }>();
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

  /** A connection speaks HTTP/2. */
  joined(session: ServerHttp2Session): void {
    this.#sessions.set(session, { busy: 0, since: performance.now(), used: false });
    session.once("close", () => this.#sessions.delete(session));
  }

  /** A request's head has come. One of a connection that was not told of is left alone. */
  began(request: IncomingMessage, response: ServerResponse): void {
    const session = (request as { stream?: { session?: Http2Session } }).stream?.session;
    const of = session === undefined ? undefined : this.#sessions.get(session);
    if (of !== undefined) of.used = true;
    const state = of ?? (request.httpVersionMajor === 1 ? this.#states.get(request.socket) : undefined);
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
    const now = performance.now();
    const isOver = ({ busy, since }: State, patienceMs: number): boolean =>
      busy === 0 && now - since > patienceMs;
    for (const [socket, state] of this.#states) if (isOver(state, this.#patienceMs)) socket.destroy();
    for (const [session, state] of this.#sessions)
      if (isOver(state, this.#patienceMs * (state.used ? usedPatiences : 1))) session.destroy();
  }
}
