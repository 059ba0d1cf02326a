import type { IncomingMessage } from "node:http";
import type { TLSSocket } from "node:tls";
import { endToEnd } from "../std/http-headers.ts";
import type { RouteOf } from "./endpoint.ts";
import { Refused } from "./refused.ts";

/** What a path below `/endpoint/` names. */
export interface Address {
  readonly name: string;
  /** Absent: the caller's own. */
  readonly workspaceName: string | undefined;
  /** `/endpoint/NAME` as it was written. */
  readonly prefix: string;
  /** The rest, with the query; what the container gets. Begins with `/`. */
  readonly path: string;
}

export const endpointPrefix = "/endpoint/";
const addressed =
  /^\/endpoint\/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.([a-z0-9][a-z0-9._-]{0,62}))?(?=[/?]|$)/;

/** Takes a path apart; nothing of the rest is changed. `undefined`: it names no endpoint. */
export function parseAddress(url: string): Address | undefined {
  const match = addressed.exec(url);
  if (match === null) return undefined;
  const [prefix, name = "", workspaceName] = match;
  const rest = url.slice(prefix.length);
  return { name, workspaceName, prefix, path: rest.startsWith("/") ? rest : `/${rest}` };
}

/** Whose endpoint is meant: the workspace that is named, else the caller's, else the one that every cluster has. */
export function routeOf(address: Address, workspaceId: string | undefined): RouteOf {
  if (address.workspaceName !== undefined) return { workspaceName: address.workspaceName };
  return workspaceId === undefined ? { workspaceName: "default" } : { workspaceId };
}

/** Names that we write, or that only our own parts may: also as a CGI-like server would read them (`X_Forwarded_For`). */
function isOurs(name: string): boolean {
  const plain = name.replaceAll("_", "-");
  return (
    plain.startsWith("x-forwarded-") ||
    plain.startsWith("oci-node-") ||
    plain === "forwarded" ||
    plain === "x-real-ip" ||
    plain === "x-request-id"
  );
}

/** Also where it stands as no credential that counts: after another one, or after a tab. */
const clusterToken = /(?:^|\s)ocn_\S/i;

/** Of the message, but made anew for each connection. */
const framing: ReadonlySet<string> = new Set(["host", "content-length", "expect"]);

/**
 * The head that a container gets: the client's fields, end to end, in their order; who the client is, as far as this gateway sees it.
 *
 * @param token whether the Authorization field is this cluster's own: nothing that runs in a container is to have it
 */
export function headersFor(
  request: IncomingMessage,
  { address, id, token }: { readonly address: Address; readonly id: string; readonly token: boolean },
): string[] {
  const host = hostOf(request);
  const kept = endToEnd(
    request.rawHeaders,
    (name, value) =>
      framing.has(name) || isOurs(name) || (name === "authorization" && (token || clusterToken.test(value))),
  );
  const { remoteAddress = "" } = request.socket;
  return [
    "Host",
    host,
    ...kept,
    "X-Forwarded-For",
    remoteAddress.replace(/^::ffff:(?=\d+\.)/, ""),
    "X-Forwarded-Proto",
    (request.socket as TLSSocket).encrypted ? "https" : "http",
    "X-Forwarded-Host",
    host,
    "X-Forwarded-Prefix",
    address.prefix,
    "X-Request-Id",
    id,
  ];
}

/** @throws Refused for what cannot be passed on without a change of its meaning */
export function checkRequest(request: IncomingMessage): void {
  const { rawHeaders, headers } = request;
  let hosts = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) if (rawHeaders[at]?.toLowerCase() === "host") hosts++;
  if (hosts > 1) throw new Refused("bad_request", "the request names several hosts");
  const { "content-length": length, "transfer-encoding": encoding, upgrade } = headers;
  // The parser has refused it; what would make two requests of one is looked at twice.
  if (length !== undefined && encoding !== undefined)
    throw new Refused("bad_request", "the request has two lengths");
  if (encoding !== undefined && encoding.toLowerCase() !== "chunked")
    throw new Refused(
      "bad_request",
      `a body with the transfer encoding ${JSON.stringify(encoding)} is not taken`,
    );
  if (upgrade?.toLowerCase() === "websocket")
    throw new Refused("upgrade", "endpoints speak HTTP, not WebSocket", {
      next: "Send events with a streamed answer (text/event-stream).",
    });
}

function hostOf(request: IncomingMessage): string {
  const { host, ":authority": authority } = request.headers as { host?: string; ":authority"?: string };
  return authority ?? host ?? "";
}
