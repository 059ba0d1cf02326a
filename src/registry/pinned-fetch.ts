import { isIP } from "node:net";
import { rootCertificates } from "node:tls";
import { errnoOf } from "../std/error.ts";
import { RegistryError, type Where } from "./error.ts";

export interface PinnedRequest {
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  readonly userAgent: string;
  /** PEM certificates trusted in addition to the system's. */
  readonly ca: string | undefined;
  /** Over a connection of its own: one that was used before may be dead without either end knowing. */
  readonly freshConnection: boolean;
  readonly signal: AbortSignal;
}

/** Asks the very address, under the name of the URL's host (Host and TLS server name). Redirects are not followed. */
export function fetchPinned(address: string, request: PinnedRequest): Promise<Response> {
  const { url, ca } = request;
  const there = new URL(url);
  there.hostname = address.includes(":") ? `[${address}]` : address;
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  const tls = {
    ...(isIP(hostname) === 0 ? { serverName: hostname } : {}),
    ...(ca === undefined ? {} : { ca: [...rootCertificates, ca] }),
  };
  return fetch(there, {
    method: request.method,
    headers: {
      "User-Agent": request.userAgent,
      "Accept-Encoding": "identity",
      ...request.headers,
      Host: url.host,
    },
    redirect: "manual",
    decompress: false,
    keepalive: !request.freshConnection,
    signal: request.signal,
    ...(request.body === undefined ? {} : { body: request.body }),
    ...(url.protocol === "https:" ? { tls } : {}),
  } as BunFetchRequestInit);
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
