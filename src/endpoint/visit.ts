import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Forwarded, Forwarding } from "../runtime/requests/forwarder.ts";
import { ExchangeError } from "../runtime/requests/http-exchange.ts";
import { breakOff, passAnswer } from "../runtime/requests/pass-answer.ts";
import { CodedError, messageOf } from "../std/error.ts";
import { endToEnd, headerOf } from "../std/http-headers.ts";
import { keptBytesMax, RequestBody } from "../std/request-body.ts";
import { waitFor } from "../std/wait.ts";
import type { BodyRoom } from "./body-room.ts";
import type { Callers, TokenHolder } from "./callers.ts";
import type { Route, Routing, Target } from "./endpoint.ts";
import type { FailureLog } from "./failure-log.ts";
import type { FrontMetrics } from "./front-metrics.ts";
import { type Dispatcher, Moved, type Slot } from "./queue.ts";
import { Refused } from "./refused.ts";
import { type Address, checkRequest, headersFor, routeOf } from "./request-head.ts";

export interface VisitDependencies {
  readonly routing: Routing;
  readonly dispatcher: Dispatcher;
  readonly callers: Callers;
  readonly metrics: FrontMetrics;
  readonly failures: FailureLog;
  readonly room: BodyRoom;
  /** Who hands requests to the containers of a worker. */
  readonly forwardingTo: (worker: Target["worker"]) => Forwarding;
}

/** What a runner says of a function that threw; its body has the traceback. */
const errorHeader = "oci-node-error";
const exception = "exception";

/** What a request that is not over waits for. */
type Pending = "body" | "container" | "answer";

/** The client has left, or was answered. */
class Over extends Error {
  override readonly name = "Over";
}

const idPrefix = `r-${randomBytes(5).toString("hex")}`;
let visits = 0;

/** One request, from its arrival until its answer has ended, one way or another. */
export class Visit {
  readonly #dependencies: VisitDependencies;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #address: Address;
  readonly #id = `${idPrefix}${(++visits).toString(36)}`;
  readonly #arrived = performance.now();
  readonly #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #body: RequestBody;
  #route: Route | undefined;
  /** The container that has it, or had it last. */
  #containerId: string | undefined;
  /** Whether the caller may see what happens in the workspace's containers. */
  #insider = false;
  #waited = false;
  #waitsFor: Pending = "body";
  /** Of the room for bodies. */
  #keptBytes = 0;

  constructor(
    dependencies: VisitDependencies,
    request: IncomingMessage,
    response: ServerResponse,
    address: Address,
  ) {
    this.#dependencies = dependencies;
    this.#request = request;
    this.#response = response;
    this.#address = address;
    const ask = request.headers.expect === undefined ? undefined : () => response.writeContinue();
    this.#body = new RequestBody(request, ask);
    response.once("close", () => this.#closed());
    // Of a connection that is gone; the close says so.
    request.on("error", () => undefined);
    response.on("error", () => undefined);
  }

  async run(): Promise<void> {
    try {
      checkRequest(this.#request);
      const token = tokenOf(this.#request);
      const holder = token === undefined ? undefined : await this.#dependencies.callers.find(token);
      const route = await this.#allowed(holder);
      this.#limit(route);
      await this.#gather();
      await this.#visit(route, token !== undefined);
    } catch (error) {
      this.#fail(this.#abort.signal.aborted ? this.#abort.signal.reason : error);
    }
  }

  /** A sender who takes his time is to have no container meanwhile; what is small can be sent again, too. */
  async #gather(): Promise<void> {
    const { lengthBytes, whole } = this.#body;
    if (whole !== undefined || lengthBytes === undefined || lengthBytes > keptBytesMax) return;
    if (!this.#dependencies.room.take(lengthBytes)) return;
    this.#keptBytes = lengthBytes;
    await waitFor(this.#body.gather(), this.#abort.signal);
  }

  /** The endpoint's route, if it is for this caller: others are not told that there is one. */
  async #allowed(holder: TokenHolder | undefined): Promise<Route> {
    const route = await this.#find(holder?.workspaceId);
    const own = route !== undefined && holder?.workspaceId === route.workspaceId;
    const role = holder?.role ?? "";
    this.#insider = own && (role === "owner" || role === "developer");
    if (route !== undefined && (route.spec.public || this.#insider)) {
      this.#route = route;
      return route;
    }
    if (own)
      throw new Refused("permission_denied", `a token with the role ${role} may not call endpoints`, {
        next: "It takes a token with the role owner or developer.",
      });
    if (holder === undefined)
      throw new Refused(
        "token_needed",
        "it takes a token of the endpoint's workspace: there was none, or one that is unknown, expired or revoked",
        {
          next: "Send it as `Authorization: Bearer TOKEN`.",
          headers: { "www-authenticate": 'Bearer realm="oci-node"' },
        },
      );
    throw new Refused("not_found", `there is no endpoint ${this.#address.name} here`, {
      next: "See `oci-node endpoint ls`; another workspace's public ones are at /endpoint/NAME.WORKSPACE.",
    });
  }

  #find(workspaceId: string | undefined): Promise<Route | undefined> {
    const { routing } = this.#dependencies;
    return routing.find(this.#address.name, routeOf(this.#address, workspaceId));
  }

  /** From the arrival to the answer's end, whatever happens. */
  #limit({ spec: { requestTimeoutMs, bodyBytesMax } }: Route): void {
    const tooLarge = (): Refused =>
      new Refused("body_too_large", `the request's body is larger than ${bodyBytesMax} bytes`);
    if ((this.#body.lengthBytes ?? 0) > bodyBytesMax) throw tooLarge();
    this.#body.limit(bodyBytesMax, () => this.#end(tooLarge()));
    const leftMs = requestTimeoutMs - (performance.now() - this.#arrived);
    const over = (): void => this.#end(tooLate(requestTimeoutMs, this.#waitsFor));
    this.#timer = setTimeout(over, Math.max(0, leftMs));
  }

  async #visit(first: Route, withToken: boolean): Promise<void> {
    const { signal } = this.#abort;
    const headers = headersFor(this.#request, { address: this.#address, id: this.#id, token: withToken });
    for (let route = first, again = false; ; again = true) {
      signal.throwIfAborted();
      this.#waitsFor = "container";
      const slot = await this.#take(route, again);
      if (slot === undefined) {
        route = await this.#moved(route);
        continue;
      }
      const done = await this.#forward(slot, headers);
      if (done.kind === "answer") {
        done.answer.once("close", () => slot.release());
        this.#answer(done.answer);
        return;
      }
      slot.refused(done.why);
      if (!this.#body.repeatable)
        throw new Refused("broken", `container ${this.#containerId} was gone before it had the request`);
    }
  }

  async #forward(slot: Slot, headers: readonly string[]): Promise<Forwarded> {
    const { containerId, worker } = slot.target;
    this.#containerId = containerId;
    this.#waitsFor = "answer";
    try {
      return await this.#dependencies.forwardingTo(worker).forward({
        containerId,
        method: this.#request.method ?? "GET",
        path: this.#address.path,
        headers,
        body: this.#body,
        signal: this.#abort.signal,
      });
    } catch (error) {
      slot.release();
      if (!(error instanceof ExchangeError)) throw error;
      throw new Refused("broken", `container ${containerId} did not answer: ${error.message}`, {
        next: `See how it is, and what it wrote: oci-node inspect ${containerId}; oci-node endpoint logs ${this.#address.name}`,
        cause: error,
      });
    }
  }

  /** `undefined`: another deployment takes the requests by now. */
  async #take(route: Route, again: boolean): Promise<Slot | undefined> {
    try {
      const taken = this.#dependencies.dispatcher.take(route, this.#abort.signal, again);
      if (!(taken instanceof Promise)) return taken;
      if (route.targets.length === 0) this.#waited = true;
      return await taken;
    } catch (error) {
      if (error instanceof Moved) return undefined;
      throw error;
    }
  }

  async #moved({ workspaceId }: Route): Promise<Route> {
    const route = await this.#find(workspaceId);
    if (route === undefined || route.workspaceId !== workspaceId)
      throw new Refused("not_found", `there is no endpoint ${this.#address.name} here any more`);
    this.#route = route;
    return route;
  }

  #answer(answer: IncomingMessage): void {
    const failed = headerOf(answer.rawHeaders, errorHeader) === exception;
    if (failed && !this.#insider) {
      answer.destroy();
      throw new Refused("handler_failed", "the handler threw");
    }
    if (failed) this.#log("handler_failed", "the handler threw", answer.statusCode ?? 500);
    const headers = endToEnd(answer.rawHeaders, isOfCluster);
    headers.push("X-Request-Id", this.#id);
    if (failed) headers.push("Oci-Node-Error", exception);
    answer.once("error", (error) => {
      if (this.#abort.signal.aborted) return;
      this.#log("broken", `the answer broke off: ${messageOf(error)}`, this.#response.statusCode);
    });
    try {
      passAnswer(answer, this.#response, headers);
    } catch (error) {
      answer.destroy();
      throw new Refused("broken", `container ${this.#containerId} answered what is not HTTP`, {
        cause: error,
      });
    }
  }

  /** Ends it before its time. */
  #end(error: Refused): void {
    if (this.#response.headersSent) {
      this.#log(error.code, error.message, this.#response.statusCode);
      this.#abort.abort(error);
      breakOff(this.#response);
    } else {
      this.#abort.abort(error);
    }
  }

  #fail(thrown: unknown): void {
    if (thrown instanceof Over) {
      this.#body.discard();
      return;
    }
    const error = thrown instanceof Refused ? thrown : this.#unexpected(thrown);
    const response = this.#response;
    if (error.status >= 500 && error.code !== "upgrade") this.#log(error.code, error.message, error.status);
    if (response.headersSent) {
      breakOff(response);
      return;
    }
    const body = error.body(this.#id, this.#insider);
    const close = this.#body.unasked && this.#request.httpVersionMajor === 1;
    response.writeHead(error.status, {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      "cache-control": "no-store",
      "x-request-id": this.#id,
      [errorHeader]: error.code,
      ...error.headers,
      ...(close ? { connection: "close" } : {}),
    });
    response.end(this.#request.method === "HEAD" ? undefined : body);
    this.#body.discard();
  }

  #unexpected(error: unknown): Refused {
    // Another's message may hold what must not be shown.
    const why = error instanceof CodedError ? error.message : "unexpectedly";
    return new Refused("unavailable", `the gateway cannot pass requests on now: ${why}`, {
      cause: error,
      headers: { "retry-after": "1" },
    });
  }

  /** The response has ended, or its connection has. */
  #closed(): void {
    clearTimeout(this.#timer);
    const gone = !this.#response.writableEnded;
    if (!this.#abort.signal.aborted) this.#abort.abort(new Over());
    this.#body.discard();
    this.#dependencies.room.give(this.#keptBytes);
    if (this.#route === undefined) return;
    this.#dependencies.metrics.note(this.#route, {
      status:
        gone && !this.#response.headersSent ? "gone" : `${Math.floor(this.#response.statusCode / 100)}xx`,
      seconds: (performance.now() - this.#arrived) / 1000,
      cold: this.#waited,
    });
  }

  #log(code: string, reason: string, status: number): void {
    this.#dependencies.failures.note({
      id: this.#id,
      endpoint: this.#address.name,
      workspace: this.#route?.workspaceId,
      deployment: this.#route?.deploymentId,
      container: this.#containerId,
      code,
      reason,
      status,
      elapsedMs: Math.round(performance.now() - this.#arrived),
    });
  }
}

function tooLate(timeoutMs: number, pending: Pending): Refused {
  const seconds = timeoutMs / 1000;
  const next = {
    body: "Send it faster, or deploy the endpoint with a longer timeout.",
    container: "Deploy the endpoint with more containers, more requests per container, or a longer timeout.",
    answer: "Deploy the endpoint with a longer timeout, or let the request do less.",
  };
  const message = {
    body: `the request's body did not come within ${seconds} s`,
    container: `no container was free for the request within ${seconds} s`,
    answer: `the request took longer than ${seconds} s`,
  };
  return new Refused("timeout", message[pending], { next: next[pending] });
}

/** A token of this cluster's. Another bearer token may be for the endpoint itself. */
function tokenOf({ headers }: IncomingMessage): string | undefined {
  return /^Bearer +(ocn_\S+)$/i.exec(headers.authorization ?? "")?.[1];
}

function isOfCluster(name: string): boolean {
  return name.startsWith("oci-node-") || name === "x-request-id";
}
