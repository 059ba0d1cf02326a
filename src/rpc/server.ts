import { readFileSync } from "node:fs";
import * as http from "node:http";
import * as http2 from "node:http2";
import * as net from "node:net";
import type { Server as TlsServer } from "node:tls";
import type { DescMessage } from "@bufbuild/protobuf";
import type { ConnectRouter, Interceptor } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { CodedError, errnoOf } from "../std/error.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import type { VerifyToken } from "./authentication.ts";
import { connectionValues } from "./caller-address.ts";
import { type Gate, gateByEither, gateByToken } from "./gate.ts";
import { IdleConnections } from "./idle-connections.ts";
import { KnownSenders, strangersBytesMax } from "./known-senders.ts";
import { withPeer } from "./peer.ts";
import { expecting, requestText } from "./request-json.ts";
import { openSessionLimits, sessionLimits } from "./session-limits.ts";
import { discardBody, hasUnreadStream, withUnreadBody } from "./unread-body.ts";

export type ListenErrorCode = "address_in_use" | "cannot_listen";

/** An address that a role was told to listen on and cannot. */
export class ListenError extends CodedError<ListenErrorCode> {
  override readonly name = "ListenError";
}

/** Files of the operator's. */
export interface OperatorTls {
  readonly certFile: string;
  readonly keyFile: string;
}

/** An identity of the cluster's; whoever connects shows one too. */
export interface MutualTls {
  readonly identity: TlsIdentity;
  /** `required`: no connection without a certificate of the identity's authorities. */
  readonly clients: "required" | "asked";
  /** Called with the address of whoever speaks something else than TLS. */
  readonly onCleartext?: (from: string) => void;
}

export interface ServeOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly routes: (router: ConnectRouter) => void;
  readonly interceptors: Interceptor[];
  /** Tells senders from strangers, of whose requests less is read; absent: nobody connects who is a stranger. */
  readonly verify?: VerifyToken;
  readonly tls?: OperatorTls | MutualTls;
  /**
   * Asked of each request before anything looks at it as an RPC; false: it is for somebody else. A client that waits to be asked for
   * the body (`Expect: 100-continue`) is asked by whoever takes the request.
   */
  readonly first?: (request: http.IncomingMessage, response: http.ServerResponse) => boolean;
  /** Answers what is not an RPC, such as `/healthz`. */
  readonly fallback?: (request: http.IncomingMessage, response: http.ServerResponse) => void;
  /** How long an HTTP/1.1 connection may be without a request, or with half of its head; absent: a minute. */
  readonly idleMs?: number;
}

export interface Server {
  readonly host: string;
  readonly port: number;
  /** `http://host:port`, or https where TLS is on. */
  readonly url: string;
  /** Shows another certificate from now on; connections that there are keep theirs. Only for a server with an identity. */
  renew(identity: TlsIdentity): void;
  close(): Promise<void>;
}

const http2Preface = "PRI";
const minVersion = "TLSv1.2";
const bodyBytesMax = 4 * 1024 * 1024;
const idleMsDefault = 60_000;

/**
 * Serves Connect and gRPC, over HTTP/1.1 and HTTP/2, on one port.
 *
 * With TLS one server speaks both by ALPN. In cleartext (loopback only, which the configuration checks) the first
 * bytes of a connection decide: the HTTP/2 preface begins with `PRI` (RFC 9113, 3.4).
 */
export async function serve(options: ServeOptions): Promise<Server> {
  const inputs = new Map<string, DescMessage>();
  const gate =
    options.verify === undefined ? undefined : discarding(gateByEither(gateByToken(options.verify)));
  const adapterOf = (readMaxBytes: number) =>
    connectNodeAdapter({
      routes(router) {
        options.routes(router);
        for (const { requestPath, method } of router.handlers) inputs.set(requestPath, method.input);
      },
      interceptors: options.interceptors,
      contextValues: (request) => withUnreadBody(withPeer(connectionValues(request), request), request),
      readMaxBytes,
      ...(gate === undefined ? {} : { requestGate: gate }),
      jsonOptions: { textDecoder: requestText } as object,
      ...(options.fallback === undefined ? {} : { fallback: options.fallback as never }),
    });
  const [large, small] = [adapterOf(bodyBytesMax), adapterOf(strangersBytesMax)];
  const senders = options.verify === undefined ? undefined : new KnownSenders(options.verify);
  const rpc: typeof large = (request, response) => {
    const answer = (mayBeLarge: boolean): void =>
      expecting(inputs.get((request.url ?? "").split("?", 1)[0] ?? ""), () =>
        (mayBeLarge ? large : small)(request, response),
      );
    const mayBeLarge = senders?.mayBeLarge(request) ?? true;
    if (typeof mayBeLarge === "boolean") answer(mayBeLarge);
    else void mayBeLarge.then(answer);
  };
  const { first = () => false, idleMs = idleMsDefault } = options;
  const idle = new IdleConnections(idleMs);
  const handler = (request: never, response: never): void => {
    idle.began(request, response);
    if (!first(request, response)) rpc(request, response);
  };
  const asked = (request: never, response: never): void => {
    idle.began(request, response);
    if (first(request, response)) return;
    (response as http.ServerResponse).writeContinue();
    rpc(request, response);
  };
  const limits = options.verify === undefined ? sessionLimits : openSessionLimits;
  const sockets = new Set<net.Socket>();
  const listener =
    options.tls === undefined
      ? cleartext(handler, asked, idle, limits)
      : encrypted(handler, asked, idle, limits, options.tls);
  listener.on("connection", (socket: net.Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  await listen(listener, options.host, options.port);
  const address = listener.address() as net.AddressInfo;
  const shownHost = options.host.includes(":") ? `[${options.host}]` : options.host;
  return {
    host: options.host,
    port: address.port,
    url: `${options.tls === undefined ? "http" : "https"}://${shownHost}:${address.port}`,
    renew: (identity) => {
      (listener as unknown as TlsServer).setSecureContext({ ...identity.secureContext(), minVersion });
    },
    close: () =>
      new Promise((resolve) => {
        idle.close();
        listener.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/**
 * Over HTTP/2 a stranger is answered when his body has come, of which nothing is kept; over HTTP/1.1 as by the limits. Who
 * talks and listens at once ends his body when he was answered.
 */
function discarding(gate: Gate): Gate {
  return async (call) => {
    if (!hasUnreadStream(call.values)) return;
    try {
      await gate(call);
    } catch (refused) {
      if (call.method.methodKind !== "bidi_streaming") await discardBody(call.values, bodyBytesMax);
      throw refused;
    }
  };
}

/** What OpenSSL says of HTTP/2 and HTTP/1.1 in place of a ClientHello. */
const cleartextCodes: ReadonlySet<string> = new Set(["ERR_SSL_WRONG_VERSION_NUMBER", "ERR_SSL_HTTP_REQUEST"]);

type Handler = (request: never, response: never) => void;

function encrypted(
  handler: Handler,
  asked: Handler,
  idle: IdleConnections,
  limits: object,
  tls: OperatorTls | MutualTls,
): net.Server {
  const shown =
    "identity" in tls
      ? {
          ...tls.identity.secureContext(),
          requestCert: true,
          rejectUnauthorized: tls.clients === "required",
        }
      : { cert: readFileSync(tls.certFile), key: readFileSync(tls.keyFile) };
  const server = http2.createSecureServer(
    { ...limits, allowHTTP1: true, minVersion, ...shown },
    handler as never,
  );
  server.on("checkContinue", asked as never);
  server.on("session", (session) => idle.joined(session));
  server.on("secureConnection", (socket) => {
    if (socket.alpnProtocol !== "h2") speaksHttp1(socket, idle);
  });
  // Of one connection; the others go on.
  server.on("sessionError", () => undefined);
  server.on("tlsClientError", (error, socket) => {
    if ("identity" in tls && cleartextCodes.has(errnoOf(error) ?? ""))
      tls.onCleartext?.(socket.remoteAddress ?? "");
  });
  return server as unknown as net.Server;
}

function cleartext(handler: Handler, asked: Handler, idle: IdleConnections, limits: object): net.Server {
  const h1 = http.createServer(handler as never);
  const h2 = http2.createServer({ ...limits }, handler as never);
  for (const server of [h1, h2]) server.on("checkContinue", asked as never);
  h2.on("session", (session) => idle.joined(session));
  return net.createServer((socket) => {
    socket.on("error", () => socket.destroy());
    idle.opened(socket);
    socket.once("data", (first: Buffer) => {
      socket.pause();
      socket.unshift(first);
      const isHttp2 = first.subarray(0, 3).toString("latin1") === http2Preface;
      if (isHttp2) idle.leave(socket);
      else speaksHttp1(socket, idle);
      (isHttp2 ? h2 : h1).emit("connection", socket);
      socket.resume();
    });
  });
}

/** Bun 1.4.5 writes the heads of answers as a connection's default encoding says; they are bytes (RFC 9110, 5.5). */
function speaksHttp1(socket: net.Socket, idle: IdleConnections): void {
  socket.setDefaultEncoding("latin1");
  idle.opened(socket);
}

function listen(server: net.Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => {
      const inUse = errnoOf(error) === "EADDRINUSE";
      reject(
        new ListenError(
          inUse ? "address_in_use" : "cannot_listen",
          inUse
            ? `cannot listen on ${host}:${port}: the port is in use`
            : `cannot listen on ${host}:${port}: ${errnoOf(error) ?? "failed"}`,
          {
            next: "Choose another address with --listen HOST:PORT (port 0 takes any free one).",
            cause: error,
          },
        ),
      );
    });
    server.listen(port, host, () => resolve());
  });
}
