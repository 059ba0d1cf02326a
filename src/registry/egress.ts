import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { rootCertificates } from "node:tls";
import { errnoOf } from "../std/error.ts";
import { waitFor } from "../std/wait.ts";
import { isPublicAddress } from "./address.ts";
import { Answer } from "./answer.ts";
import { Breakers } from "./breaker.ts";
import { RegistryError, type Where } from "./error.ts";
import type { ResolvedPolicy } from "./policy.ts";

export interface EgressRequest {
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly where: Where;
  readonly signal: AbortSignal;
  /** Until the head must be there; the policy's limit when absent. */
  readonly timeoutMs?: number;
}

/** Addresses of a host name. By default the system's resolver. */
export type ResolveHost = (hostname: string) => Promise<readonly string[]>;

export interface EgressOptions {
  readonly policy: ResolvedPolicy;
  readonly userAgent: string;
  readonly resolveHost?: ResolveHost | undefined;
  readonly now: () => number;
}

const addressesMax = 3;
const addressLifeMs = 30_000;
const namesMax = 1000;

/**
 * The one door to the network of this room; tokens and redirects go through it, too.
 *
 * HTTPS only, no user information, the host's address looked up once, judged, and pinned: the request goes to the very
 * address that was judged, under the host's name (Host and TLS server name). Plain HTTP and private addresses are for
 * hosts that the operator listed. Redirects are never followed here.
 */
export class Egress {
  readonly policy: ResolvedPolicy;
  readonly #userAgent: string;
  readonly #resolveHost: ResolveHost;
  readonly #now: () => number;
  readonly #breakers: Breakers;
  readonly #addresses = new Map<string, { readonly list: readonly string[]; readonly untilMs: number }>();

  constructor(options: EgressOptions) {
    this.policy = options.policy;
    this.#userAgent = options.userAgent;
    this.#resolveHost = options.resolveHost ?? systemAddresses;
    this.#now = options.now;
    this.#breakers = new Breakers(options.now);
  }

  /** Whether the operator allows plain HTTP to this host. */
  isInsecure(url: URL): boolean {
    return lists(this.policy.insecureHosts, url);
  }

  /** @throws RegistryError `egress_refused`, `unreachable`, `tls`, `timeout`; the signal's reason when it aborts */
  async send(request: EgressRequest): Promise<Answer> {
    request.signal.throwIfAborted();
    this.#check(request);
    this.#breakers.check(request.url.host, request.where);
    const addresses = await this.#permitted(request);
    try {
      const answer = await this.#sendToFirst(addresses, request);
      this.#breakers.report(request.url.host, answer.status < 500);
      return answer;
    } catch (error) {
      if (error instanceof RegistryError) this.#breakers.report(request.url.host, false);
      throw error;
    }
  }

  #check({ url, where }: EgressRequest): void {
    if (url.username !== "" || url.password !== "")
      throw refusal(where, `${where.registry} leads to an address with a user name in it`);
    if (url.protocol === "https:") return;
    if (url.protocol !== "http:")
      throw refusal(where, `${where.registry} leads to an address that is not HTTPS`);
    if (this.isInsecure(url)) return;
    throw refusal(where, `${url.host} would be spoken to without encryption`, insecureHint(url));
  }

  async #permitted({ url, where, signal }: EgressRequest): Promise<readonly string[]> {
    const all = await this.#lookup(url, where, signal);
    const trusted = this.isInsecure(url) || lists(this.policy.privateHosts, url);
    const permitted = trusted ? all : all.filter(isPublicAddress);
    if (permitted.length > 0) return permitted.slice(0, addressesMax);
    throw refusal(where, `${url.host} has no address on the public internet`, insecureHint(url));
  }

  async #lookup(url: URL, where: Where, signal: AbortSignal): Promise<readonly string[]> {
    const hostname = url.hostname.replace(/^\[|\]$/g, "");
    if (isIP(hostname) !== 0) return [hostname];
    const known = this.#addresses.get(hostname);
    if (known !== undefined && this.#now() < known.untilMs) return known.list;
    const limit = AbortSignal.timeout(this.policy.requestTimeoutMs);
    try {
      const list = await waitFor(this.#resolveHost(hostname), AbortSignal.any([signal, limit]));
      if (this.#addresses.size >= namesMax) this.#addresses.clear();
      this.#addresses.set(hostname, { list, untilMs: this.#now() + addressLifeMs });
      return list;
    } catch (error) {
      signal.throwIfAborted();
      throw new RegistryError(
        "unreachable",
        `${url.hostname} cannot be found (${errnoOf(error) ?? "no answer from DNS"})`,
        where,
        {
          next: `Check the name ${url.hostname} and this machine's DNS.`,
        },
      );
    }
  }

  /** A host with several addresses is tried at the next one when a connection cannot be made. */
  async #sendToFirst(addresses: readonly string[], request: EgressRequest): Promise<Answer> {
    let failure: unknown;
    for (const address of addresses) {
      try {
        return await this.#sendTo(address, request);
      } catch (error) {
        if (!(error instanceof RegistryError) || error.code !== "unreachable") throw error;
        failure = error;
      }
    }
    throw failure;
  }

  async #sendTo(address: string, request: EgressRequest): Promise<Answer> {
    const { url, where, signal } = request;
    const timeoutMs = Math.min(request.timeoutMs ?? Number.POSITIVE_INFINITY, this.policy.requestTimeoutMs);
    const controller = new AbortController();
    const leave = (): void => controller.abort(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    const done = (): void => signal.removeEventListener("abort", leave);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      controller.abort();
    }, timeoutMs);
    try {
      const response = await fetch(pinned(url, address), this.#init(request, controller.signal));
      return new Answer(response, {
        where,
        idleTimeoutMs: this.policy.idleTimeoutMs,
        abort: () => controller.abort(),
        done,
        signal,
        translate: (error) => translate(error, url, where),
      });
    } catch (error) {
      done();
      signal.throwIfAborted();
      if (late) {
        throw new RegistryError("timeout", `${url.host} did not answer within ${timeoutMs / 1000} s`, where, {
          next: "Check the registry and the connection to it, then try again.",
        });
      }
      throw translate(error, url, where);
    } finally {
      clearTimeout(timer);
    }
  }

  #init(request: EgressRequest, signal: AbortSignal): BunFetchRequestInit {
    const { url } = request;
    const hostname = url.hostname.replace(/^\[|\]$/g, "");
    const tls = {
      ...(isIP(hostname) === 0 ? { serverName: hostname } : {}),
      ...(this.policy.ca === undefined ? {} : { ca: [...rootCertificates, this.policy.ca] }),
    };
    return {
      method: request.method,
      headers: {
        "User-Agent": this.#userAgent,
        "Accept-Encoding": "identity",
        ...request.headers,
        Host: url.host,
      },
      redirect: "manual",
      decompress: false,
      signal,
      ...(request.body === undefined ? {} : { body: request.body }),
      ...(url.protocol === "https:" ? { tls } : {}),
    } as BunFetchRequestInit;
  }
}

async function systemAddresses(hostname: string): Promise<readonly string[]> {
  const found = await lookup(hostname, { all: true });
  // fetch knows no "happy eyeballs": IPv4 first, as a broken IPv6 route costs a whole timeout.
  return found.sort((a, b) => a.family - b.family).map((entry) => entry.address);
}

function pinned(url: URL, address: string): URL {
  const there = new URL(url);
  there.hostname = address.includes(":") ? `[${address}]` : address;
  return there;
}

/** Whether the operator's list names the host, with its port or (for the scheme's own port) without. */
export function lists(hosts: ReadonlySet<string>, url: URL): boolean {
  if (hosts.has(url.host)) return true;
  return url.port === "" && hosts.has(`${url.hostname}:${url.protocol === "https:" ? 443 : 80}`);
}

function refusal(
  where: Where,
  message: string,
  next = "Use a registry with public HTTPS addresses.",
): RegistryError {
  return new RegistryError("egress_refused", message, where, { next });
}

function insecureHint(url: URL): string {
  return `If ${url.host} is yours and meant to be reached so, start the node with --insecure-registry ${url.host}.`;
}

const tlsCodes =
  /^(CERT_|ERR_TLS|ERR_SSL|ERR_BORINGSSL|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$|OUT_OF_VALIDITY|INVALID_)/;

/** The platform's messages hold the whole URL, presigned or not: only its error code goes on. */
function translate(error: unknown, url: URL, where: Where): unknown {
  if (error instanceof RegistryError) return error;
  const code = errnoOf(error) ?? "connection lost";
  if (tlsCodes.test(code)) {
    return new RegistryError("tls", `the secure connection to ${url.host} failed (${code})`, where, {
      next:
        code === "EPROTO"
          ? insecureHint(url)
          : `Check the certificate of ${url.host}; a private authority's certificate belongs in the node's configuration.`,
    });
  }
  return new RegistryError("unreachable", `${url.host} cannot be reached (${code})`, where, {
    next: "Check that the registry is up and that this machine reaches it, then try again.",
  });
}
