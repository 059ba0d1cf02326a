import { Addresses, type ResolveHost } from "./addresses.ts";
import { Answer } from "./answer.ts";
import { RegistryError } from "./error.ts";
import { Host, type HostTime, type Turn } from "./host.ts";
import { fetchPinned, translateFetchError } from "./pinned-fetch.ts";
import { Patience, type Place, type Probe } from "./place.ts";
import { hostPolicy, lists, type ResolvedPolicy } from "./policy.ts";
import { endsShortly, probeOf } from "./probe.ts";
import { checkDestination, type Destination, findRoutes, type Route } from "./route.ts";

export interface EgressRequest extends Destination {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array<ArrayBuffer>;
  readonly signal: AbortSignal;
  /** Until the head must be there, the wait for its turn included; the policy's total time when absent. */
  readonly timeoutMs?: number;
  /** Until the head must be there once the request is sent; the policy's limit when absent. */
  readonly headTimeoutMs?: number;
  readonly order?: Order | undefined;
  /** Between two chunks of the body; the policy's limit when absent. */
  readonly idleTimeoutMs?: number;
}

/** How a request stands to others at its host. */
export interface Order {
  /** Nobody waits for it. */
  readonly background?: boolean | undefined;
  /** A token, a manifest, an issuer's word: it does not wait for the bodies of others. */
  readonly brief?: boolean | undefined;
  /** It failed before: not before this time, unless the host is seen to work again. */
  readonly againAfterMs?: number | undefined;
  /** Of the work that the request is a part of. */
  readonly patience?: Patience | undefined;
}

export interface EgressOptions {
  readonly policy: ResolvedPolicy;
  readonly userAgent: string;
  readonly resolveHost?: ResolveHost | undefined;
  readonly now: () => number;
}

const hostsMax = 1000;
const probeTimeoutMs = 2_000;
const busyCheckMs = 1_000;

/**
 * The one door to the network of this room; tokens and redirects go through it, too.
 *
 * HTTPS only, no user information, the host's address looked up once, judged, and pinned: the request goes to the very
 * address that was judged, under the host's name (Host and TLS server name). Plain HTTP and private addresses are for
 * hosts that the operator listed; where he says that a host is elsewhere, the connection goes there, and where he has a proxy
 * the proxy makes it ({@link findRoutes}). Redirects are never followed here. When a request goes, and when it is given up and sent
 * once more, is its {@link Host}'s to say.
 */
export class Egress {
  readonly policy: ResolvedPolicy;
  readonly #userAgent: string;
  readonly #addresses: Addresses;
  readonly #time: HostTime;
  readonly #hosts = new Map<string, Host>();

  constructor(options: EgressOptions) {
    const { policy, now } = options;
    this.policy = policy;
    this.#userAgent = options.userAgent;
    this.#addresses = new Addresses(options.resolveHost, now, policy.requestTimeoutMs);
    this.#time = { now: () => performance.now(), later: (timeMs, call) => void setTimeout(call, timeMs) };
  }

  /** Whether the operator allows plain HTTP to this host. */
  isInsecure(url: URL): boolean {
    return lists(this.policy.insecureHosts, url);
  }

  /** @throws RegistryError `egress_refused`, `unreachable`, `tls`, `timeout`; the signal's reason when it aborts */
  async send(request: EgressRequest): Promise<Answer> {
    const { signal, url } = request;
    signal.throwIfAborted();
    checkDestination(request, this.policy);
    const host = this.#hostOf(url);
    const timeoutMs = request.timeoutMs ?? this.policy.totalTimeoutMs;
    const ended = new AbortController();
    const leave = (): void => ended.abort(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    const timer = setTimeout(() => ended.abort(tooLate(request, timeoutMs, host.failures)), timeoutMs);
    try {
      return await this.#sendUntilAnswered(host, request, ended.signal);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", leave);
    }
  }

  async #sendUntilAnswered(host: Host, request: EgressRequest, signal: AbortSignal): Promise<Answer> {
    const { order } = request;
    const patience = order?.patience ?? new Patience();
    let again = order?.againAfterMs !== undefined;
    let pauseMs = order?.againAfterMs ?? 0;
    for (let freshConnection = false; ; freshConnection = true) {
      const routes = await findRoutes(request, this.policy, this.#addresses, signal);
      const probe: Probe = (withBody) => this.#probe(request, routes[0], withBody);
      const background = order?.background === true;
      const brief = order?.brief === true || request.method === "HEAD";
      const turn = { background, brief, again, pauseMs, patience, probe };
      const place = await this.#enter(host, turn, request, signal);
      try {
        return await this.#sendToFirst(routes, request, place, signal, freshConnection || again);
      } catch (error) {
        if (place.abandoned === undefined) {
          if (request.signal.aborted) place.leave(false);
          else place.failed();
          throw signal.aborted ? signal.reason : error;
        }
        again = place.abandoned === "displaced";
        pauseMs = 0;
      }
    }
  }

  /** Waits for a place: at a busy host as long as the signal lets it, at one in trouble as long as for a head. */
  async #enter(host: Host, turn: Turn, request: EgressRequest, signal: AbortSignal): Promise<Place> {
    const { requestTimeoutMs } = this.policy;
    const given = new AbortController();
    const check = (): void => {
      if (host.inTrouble) given.abort(tooLate(request, requestTimeoutMs, host.failures));
      else timer = setTimeout(check, busyCheckMs);
    };
    let timer = setTimeout(check, requestTimeoutMs);
    try {
      return await host.enter(turn, AbortSignal.any([signal, given.signal]));
    } finally {
      clearTimeout(timer);
    }
  }

  #hostOf(url: URL): Host {
    const known = this.#hosts.get(url.host);
    if (known !== undefined) return known;
    if (this.#hosts.size >= hostsMax)
      for (const [name, host] of this.#hosts) if (host.idle) this.#hosts.delete(name);
    const { connectionsPerHost, trialEveryMs, silentAfterMs } = this.policy;
    const { connections = connectionsPerHost } = hostPolicy(this.policy, url);
    const host = new Host({ connections, trialEveryMs, silentAfterMs }, this.#time);
    this.#hosts.set(url.host, host);
    return host;
  }

  /** A host with several addresses is tried at the next one when a connection cannot be made. */
  async #sendToFirst(
    routes: readonly Route[],
    request: EgressRequest,
    place: Place,
    signal: AbortSignal,
    freshConnection: boolean,
  ): Promise<Answer> {
    let failure: unknown;
    for (const route of routes) {
      try {
        return await this.#sendTo(route, request, place, signal, freshConnection);
      } catch (error) {
        const next = error instanceof RegistryError && error.code === "unreachable";
        if (!next || place.abandoned !== undefined) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  async #sendTo(
    route: Route,
    request: EgressRequest,
    place: Place,
    headSignal: AbortSignal,
    freshConnection: boolean,
  ): Promise<Answer> {
    const { method, url, headers, body, where, signal } = request;
    const controller = new AbortController();
    const abort = (): void => controller.abort();
    for (const one of [headSignal, signal, place.signal]) {
      one.addEventListener("abort", abort, { once: true });
      if (one.aborted) abort();
    }
    const done = (whole: boolean): void => {
      for (const one of [signal, place.signal]) one.removeEventListener("abort", abort);
      place.leave(whole);
    };
    const { headTimeoutMs = this.policy.requestTimeoutMs } = request;
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      abort();
    }, headTimeoutMs);
    try {
      const pinned = { method, url, headers, body, userAgent: this.#userAgent, freshConnection };
      const response = await fetchPinned(route, { ...pinned, signal: controller.signal });
      place.answered(response.status < 500 && response.status !== 429);
      return new Answer(response, {
        where,
        idleTimeoutMs: request.idleTimeoutMs ?? this.policy.idleTimeoutMs,
        abort,
        done,
        place,
        signal,
        translate: (error) => translateFetchError(error, request, route),
      });
    } catch (error) {
      for (const one of [signal, place.signal]) one.removeEventListener("abort", abort);
      if (headSignal.aborted) throw headSignal.reason;
      throw late ? tooLate(request, headTimeoutMs, 0) : translateFetchError(error, request, route);
    } finally {
      clearTimeout(timer);
      headSignal.removeEventListener("abort", abort);
    }
  }

  /** Whether the host answers at all, whatever it says. */
  async #probe(request: EgressRequest, route: Route, withBody: boolean): ReturnType<Probe> {
    let came: Awaited<ReturnType<Probe>> = "nothing";
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), probeTimeoutMs);
    const common = { userAgent: this.#userAgent, freshConnection: true, signal: limit.signal };
    try {
      const response = await fetchPinned(route, { ...probeOf(request, withBody), ...common });
      if (response.status >= 500 || response.status === 429) return came;
      came = "answered";
      if (withBody && response.status === 206 && (await endsShortly(response))) return "finished";
      return came;
    } catch {
      return came;
    } finally {
      clearTimeout(timer);
      limit.abort();
    }
  }
}

function tooLate({ url, where }: EgressRequest, timeoutMs: number, failures: number): RegistryError {
  const next = "Check the registry and the connection to it, then try again.";
  if (failures > 1)
    return new RegistryError(
      "unreachable",
      `${url.host} does not answer, ${failures} times in a row now`,
      where,
      { next },
    );
  return new RegistryError("timeout", `${url.host} did not answer within ${timeoutMs / 1000} s`, where, {
    next,
  });
}
