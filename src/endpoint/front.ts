import type { IncomingMessage, ServerResponse } from "node:http";
import type { Forwarding } from "../runtime/requests/forwarder.ts";
import { breakOff } from "../runtime/requests/pass-answer.ts";
import { RequestBody } from "../std/request-body.ts";
import { BodyRoom } from "./body-room.ts";
import { Callers, type TokenHolder } from "./callers.ts";
import type { Routing, Target } from "./endpoint.ts";
import { FailureLog } from "./failure-log.ts";
import { FrontMetrics } from "./front-metrics.ts";
import { Dispatcher } from "./queue.ts";
import { Refused } from "./refused.ts";
import { endpointPrefix, parseAddress } from "./request-head.ts";
import { Visit } from "./visit.ts";

/** Answers `/endpoint/NAME` and what is below it: each request finds its way to a container, or is told why not. */
export class EndpointFront {
  readonly metrics = new FrontMetrics();
  readonly dispatcher: Dispatcher;
  readonly #routing: Routing;
  readonly #callers: Callers;
  readonly #failures = new FailureLog();
  readonly #room = new BodyRoom();
  readonly #forwardingTo: (worker: Target["worker"]) => Forwarding;

  constructor(dependencies: {
    readonly routing: Routing;
    readonly verify: (token: string) => Promise<TokenHolder | undefined>;
    /** Who hands requests to the containers of a worker. */
    readonly forwardingTo: (worker: Target["worker"]) => Forwarding;
  }) {
    this.#routing = dependencies.routing;
    this.#callers = new Callers(dependencies.verify);
    this.#forwardingTo = dependencies.forwardingTo;
    this.dispatcher = new Dispatcher(dependencies.routing);
  }

  /** @returns false when the request is for something else */
  answer(request: IncomingMessage, response: ServerResponse): boolean {
    const { url = "" } = request;
    if (!url.startsWith(endpointPrefix)) return false;
    const address = parseAddress(url);
    if (address === undefined) {
      const error = new Refused(
        "not_found",
        "the path names no endpoint: /endpoint/NAME or /endpoint/NAME.WORKSPACE",
      );
      const body = new RequestBody(request, () => undefined);
      const close = body.unasked && request.httpVersionMajor === 1 ? { connection: "close" } : {};
      response.writeHead(error.status, { "content-type": "application/json", ...close });
      response.end(request.method === "HEAD" ? undefined : error.body(undefined, false));
      body.discard();
      return true;
    }
    new Visit(
      {
        routing: this.#routing,
        dispatcher: this.dispatcher,
        callers: this.#callers,
        metrics: this.metrics,
        failures: this.#failures,
        room: this.#room,
        forwardingTo: this.#forwardingTo,
      },
      request,
      response,
      address,
    )
      .run()
      .catch(() => breakOff(response));
    return true;
  }

  /** Those that wait are told to try again. */
  close(): void {
    this.dispatcher.close();
  }
}
