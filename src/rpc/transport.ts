import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";

export interface TransportOptions {
  /** `http://host:port` or `https://host:port`. */
  readonly url: string;
  /** Sent as `Authorization: Bearer …` with each call. */
  readonly token: string;
  /** PEM of all authorities that the server's certificate may come from; absent: the system's. */
  readonly ca?: readonly string[];
}

/** How clients of ours reach a server of ours: Connect over HTTP/2, one connection, a bearer token. */
export function transportTo(options: TransportOptions): Transport {
  const authorize: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${options.token}`);
    return next(request);
  };
  return createConnectTransport({
    baseUrl: options.url,
    httpVersion: "2",
    interceptors: [authorize],
    ...(options.ca === undefined
      ? {}
      : { nodeOptions: { ca: [...options.ca], minVersion: "TLSv1.2" as const } }),
    idleConnectionTimeoutMs: 60_000,
    pingIntervalMs: 15_000,
    pingTimeoutMs: 10_000,
  });
}
