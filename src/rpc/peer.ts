import type { X509Certificate } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest, Http2Session } from "node:http2";
import type { TLSSocket } from "node:tls";
import { type ContextValues, createContextKey } from "@connectrpc/connect";

/** What the other end of a connection has shown of itself. */
export interface Peer {
  /** The certificate whose key it holds, signed by an authority of the server's, and in its time when the connection was made. */
  readonly certificate: X509Certificate | undefined;
  /** Why a certificate that was shown does not count: `CERT_HAS_EXPIRED`, …, as OpenSSL names it. */
  readonly refused: string | undefined;
}

const nobody: Peer = { certificate: undefined, refused: undefined };
const peerKey = createContextKey<Peer>(nobody, { description: "peer" });

/** Of each connection: its certificate is parsed once. */
const known = new WeakMap<object, Peer>();

/** The other end of the call that these are the values of. */
export function peerOf(values: ContextValues): Peer {
  return values.get(peerKey);
}

/** Adds to a call's values what its connection has shown. */
export function withPeer(
  values: ContextValues,
  request: IncomingMessage | Http2ServerRequest,
): ContextValues {
  return values.set(peerKey, peerAt(request));
}

/** The other end of the connection that a request came over. */
export function peerAt(request: IncomingMessage | Http2ServerRequest): Peer {
  const session: Http2Session | undefined = "stream" in request ? request.stream.session : undefined;
  const connection = session ?? request.socket;
  const peer = known.get(connection) ?? describe((session?.socket ?? request.socket) as TLSSocket);
  known.set(connection, peer);
  return peer;
}

function describe(socket: TLSSocket): Peer {
  if (socket.authorized === true) return { certificate: socket.getPeerX509Certificate(), refused: undefined };
  const shown = socket.getPeerX509Certificate?.();
  return shown === undefined
    ? nobody
    : { certificate: undefined, refused: String(socket.authorizationError) };
}
