import { isIP } from "node:net";
import { rootCertificates } from "node:tls";
import { errnoOf } from "../std/error.ts";
import { RegistryError, type Where } from "./error.ts";

/** A way to a host. */
export interface Route {
  /** Judged: the connection goes to this very one. */
  readonly address: string;
  /** Gives scheme and port in place of the URL's, when the host is not where its name says. */
  readonly connect: URL | undefined;
  /** PEM certificates trusted in addition to the system's. */
  readonly authorities: readonly string[];
}

export interface PinnedRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array<ArrayBuffer> | undefined;
  readonly userAgent: string;
  /** Over a connection of its own: one that was used before may be dead without either end knowing. */
  readonly freshConnection: boolean;
  readonly signal: AbortSignal;
}

/** Asks the very address, under the name of the URL's host (Host and TLS server name). Redirects are not followed. */
export function fetchPinned(
  { address, connect, authorities }: Route,
  request: PinnedRequest,
): Promise<Response> {
  const { url } = request;
  const there = new URL(url);
  if (connect !== undefined) {
    there.protocol = connect.protocol;
    there.port = connect.port;
  }
  there.hostname = address.includes(":") ? `[${address}]` : address;
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  const tls = {
    ...(isIP(hostname) === 0 ? { serverName: hostname } : {}),
    ...(authorities.length === 0 ? {} : { ca: [...rootCertificates, ...authorities] }),
  };
  return fetch(there, {
    method: request.method,
    headers: headersOf(request),
    redirect: "manual",
    decompress: false,
    keepalive: !request.freshConnection,
    signal: request.signal,
    ...(request.body === undefined ? {} : { body: request.body }),
    ...(there.protocol === "https:" ? { tls } : {}),
  } as BunFetchRequestInit);
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

const tlsCodes =
  /^(CERT_|ERR_TLS|ERR_SSL|ERR_BORINGSSL|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$|OUT_OF_VALIDITY|INVALID_)/;

/** The platform's messages hold the whole URL, presigned or not: only its error code goes on. */
export function translateFetchError(error: unknown, url: URL, where: Where): unknown {
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
