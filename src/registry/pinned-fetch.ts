import { isIP } from "node:net";
import { getCACertificates } from "node:tls";
import { errnoOf, messageOf } from "../std/error.ts";
import { RegistryError, type Where } from "./error.ts";
import type { Destination, Route } from "./route.ts";
import { isTlsCode, tlsProblem } from "./tls-problem.ts";

export interface PinnedRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array<ArrayBuffer> | undefined;
  readonly userAgent: string;
  /** Over a connection of its own: one that was used before may be dead without either end knowing. */
  readonly freshConnection: boolean;
  readonly signal: AbortSignal;
}

/**
 * Asks the very address, under the name of the URL's host (Host and TLS server name), or lets the proxy make the connection.
 * Redirects are not followed. The proxies of the environment are nobody's business here: what the operator has of them is
 * in the route.
 */
export function fetchPinned(route: Route, request: PinnedRequest): Promise<Response> {
  const { url } = request;
  const there = route.proxy === undefined ? placeOf(url, route.address, route.connect) : url;
  return fetch(there, {
    method: request.method,
    headers: headersOf(request),
    redirect: "manual",
    decompress: false,
    keepalive: !request.freshConnection,
    signal: request.signal,
    proxy: route.proxy !== undefined && { url: route.proxy.expose().href, respectNoProxy: false },
    ...(request.body === undefined ? {} : { body: request.body }),
    ...(there.protocol === "https:" ? { tls: tlsOf(url, route.authorities) } : {}),
  } as BunFetchRequestInit);
}

function placeOf(url: URL, address: string, connect: URL | undefined): URL {
  const there = new URL(url);
  if (connect !== undefined) {
    there.protocol = connect.protocol;
    there.port = connect.port;
  }
  there.hostname = address.includes(":") ? `[${address}]` : address;
  return there;
}

function tlsOf(url: URL, authorities: readonly string[]): object {
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  return {
    ...(isIP(hostname) === 0 ? { serverName: hostname } : {}),
    ...(authorities.length === 0 ? {} : { ca: [...usualAuthorities(), ...authorities] }),
  };
}

let usual: readonly string[] | undefined;

/** Whom `fetch` trusts when it is told of nobody: Mozilla's list, and what NODE_EXTRA_CA_CERTS adds to it. */
function usualAuthorities(): readonly string[] {
  usual ??= getCACertificates("default");
  return usual;
}

/** Names are one whatever their case: an issuer's library may bring its own User-Agent. */
function headersOf({ url, userAgent, headers }: PinnedRequest): Headers {
  const all = new Headers({ "User-Agent": userAgent, "Accept-Encoding": "identity" });
  for (const [name, value] of Object.entries(headers)) all.set(name, value);
  all.set("Host", url.host);
  return all;
}

/** What a user may do who meant to reach a host that is refused. */
export function insecureHint(url: URL): string {
  return `If ${url.host} is yours and meant to be reached so, start the node with --insecure-registry ${url.host}.`;
}

/** The platform's messages hold the whole URL, presigned or not: only its error code goes on. */
export function translateFetchError(error: unknown, { url, where }: Destination, { proxy }: Route): unknown {
  if (error instanceof RegistryError) return error;
  const code = errnoOf(error) ?? "connection lost";
  if (code === "ERR_PROXY_TUNNEL") return refusedByProxy(messageOf(error), url, where);
  if (isTlsCode(code)) {
    const problem = tlsProblem(code, url.host, where, insecureHint(url));
    return proxy?.expose().protocol === "https:" ? orOfProxy(problem, where) : problem;
  }
  const through = proxy === undefined ? "" : " through the node's proxy";
  return new RegistryError("unreachable", `${url.host} cannot be reached${through} (${code})`, where, {
    next:
      proxy === undefined
        ? "Check that the registry is up and that this machine reaches it, then try again."
        : "Check that the registry is up, and that this machine reaches the proxy of its configuration or environment.",
  });
}

/** Which of the two connections failed is not told. */
function orOfProxy({ message, next }: RegistryError, where: Where): RegistryError {
  return new RegistryError("tls", `${message}, or that of the node's proxy`, where, {
    next: `${next} The authority of a proxy that is spoken to over TLS belongs in ca_file under [registry].`,
  });
}

/** Of what a proxy says only the status is repeated. */
function refusedByProxy(message: string, url: URL, where: Where): RegistryError {
  const status = /\b[1-5]\d\d\b/.exec(message)?.[0] ?? "no status";
  return new RegistryError(
    "unreachable",
    `the node's proxy does not connect to ${url.host} (${status})`,
    where,
    {
      next:
        status === "407"
          ? "Check the proxy's user name and password in the node's configuration or environment."
          : `Have the proxy allow ${url.host}, or have the operator set proxy = "none" for it.`,
    },
  );
}
