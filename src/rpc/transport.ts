import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import {
  type ConnectTransportOptions,
  createConnectTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { sessionLimits } from "./session-limits.ts";

export interface TransportOptions {
  /** `http://host:port` or `https://host:port`. */
  readonly url: string;
  /** Sent as `Authorization: Bearer …` with each call. */
  readonly token: string;
  /** PEM of all authorities that the server's certificate may come from; absent: the system's. */
  readonly ca?: readonly string[];
}

export interface ClusterTransportOptions {
  /** `https://host:port`. */
  readonly url: string;
  /** The name that the server's certificate must have, wherever it is reached. */
  readonly serverName: string;
  /** PEM of the authorities that count; what the client itself shows, if anything. */
  readonly tls: TlsIdentity | { readonly authorities: string };
  readonly token?: string;
}

const connection = {
  httpVersion: "2",
  idleConnectionTimeoutMs: 60_000,
  pingIntervalMs: 15_000,
  pingTimeoutMs: 10_000,
  // Programs' output would cost both ends more than the network; and what waits on its way could be any size once unpacked.
  acceptCompression: [],
} satisfies Partial<ConnectTransportOptions>;
const minVersion = "TLSv1.2";
/** Of one message. A worker may be in foreign hands; what it answers is held in memory whole. */
const answerBytesMax = 8 * 1024 * 1024;

/** How users reach a gateway: Connect over HTTP/2, one connection, a bearer token. */
export function transportTo({ url, token, ca }: TransportOptions): Transport {
  const nodeOptions = { minVersion, ...sessionLimits, ...(ca === undefined ? {} : { ca: [...ca] }) } as const;
  return createConnectTransport({ ...connection, baseUrl: url, nodeOptions, interceptors: [bearer(token)] });
}

/**
 * How the processes of a cluster reach each other: as {@link transportTo}, with certificates of the cluster's. Throws
 * ConnectError for a URL without TLS: there nobody would have to be who he says he is.
 */
export function clusterTransport(options: ClusterTransportOptions): Transport {
  return closableTransport(options).transport;
}

/** As {@link clusterTransport}, with a connection of its own that can be closed. */
export function closableTransport({ url, serverName, tls, token }: ClusterTransportOptions): {
  readonly transport: Transport;
  close(): void;
} {
  // Without TLS nobody would be asked who he is: an address that a worker, or a row of an earlier version, gave.
  if (URL.parse(url)?.protocol !== "https:")
    throw new ConnectError(`${url} is not https: nothing was sent there`, Code.Unavailable);
  const shown = "secureContext" in tls ? tls.secureContext() : { ca: tls.authorities };
  // A container that comes after a pause need not wait for a handshake.
  const kept = { ...connection, idleConnectionTimeoutMs: 10 * 60_000 };
  const nodeOptions = { ...shown, servername: serverName, minVersion, ...sessionLimits } as const;
  const sessionManager = new Http2SessionManager(url, kept, nodeOptions);
  const transport = createConnectTransport({
    ...kept,
    readMaxBytes: answerBytesMax,
    baseUrl: url,
    sessionManager,
    interceptors: token === undefined ? [] : [bearer(token)],
  });
  return { transport, close: () => void sessionManager.abort() };
}

/**
 * As {@link clusterTransport}, with the identity that counts at each call: once another one is there, calls go over a new
 * connection, and what the old one still carries ends in its time.
 */
export function renewedTransport(options: {
  readonly url: string;
  readonly serverName: string;
  readonly identity: () => TlsIdentity;
}): Transport {
  let latest: { readonly tls: TlsIdentity; readonly transport: Transport } | undefined;
  const current = (): Transport => {
    const tls = options.identity();
    if (latest?.tls !== tls) latest = { tls, transport: clusterTransport({ ...options, tls }) };
    return latest.transport;
  };
  return {
    unary: (...call) => current().unary(...call),
    stream: (...call) => current().stream(...call),
  };
}

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}
