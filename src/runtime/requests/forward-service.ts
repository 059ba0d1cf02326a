import type { X509Certificate } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { peerAt } from "../../rpc/peer.ts";
import { messageOf } from "../../std/error.ts";
import { endToEnd } from "../../std/http-headers.ts";
import { RequestBody } from "../../std/request-body.ts";
import { answered, broken, forwardHeader, forwardPrefix } from "./forward-wire.ts";
import type { Forwarded, Forwarding } from "./forwarder.ts";
import { breakOff, passAnswer } from "./pass-answer.ts";

/**
 * Answers requests for containers that gateways send to this worker, over HTTP/1.1 and TLS.
 *
 * @param isControlPlane whether a certificate, whose signature was checked, is a gateway's: others are given nothing
 * @returns false when the request is for something else
 */
export function answerForward(
  forwarding: Forwarding,
  isControlPlane: (certificate: X509Certificate) => boolean,
): (request: IncomingMessage, response: ServerResponse) => boolean {
  const trusted = new WeakSet<X509Certificate>();
  const mayForward = (request: IncomingMessage): boolean => {
    const { certificate } = peerAt(request);
    if (certificate === undefined) return false;
    if (!trusted.has(certificate)) {
      if (!isControlPlane(certificate)) return false;
      trusted.add(certificate);
    }
    return Date.parse(certificate.validTo) > Date.now();
  };
  return (request, response) => {
    const { url = "" } = request;
    if (!url.startsWith(forwardPrefix)) return false;
    if (!mayForward(request)) {
      response.writeHead(403, { "content-type": "text/plain", connection: "close" });
      response.end("this certificate does not open the containers of this worker\n");
      return true;
    }
    forward(forwarding, request, response, url.slice(forwardPrefix.length)).catch(() => breakOff(response));
    return true;
  };
}

async function forward(
  forwarding: Forwarding,
  request: IncomingMessage,
  response: ServerResponse,
  target: string,
): Promise<void> {
  const slash = target.indexOf("/");
  const abort = new AbortController();
  response.once("close", () => {
    if (!response.writableEnded) abort.abort();
  });
  // The gateway has looked at the size.
  const ask = request.headers.expect === undefined ? undefined : () => response.writeContinue();
  const body = new RequestBody(request, ask);
  let done: Forwarded;
  try {
    done = await forwarding.forward({
      containerId: target.slice(0, slash),
      method: request.method ?? "GET",
      path: target.slice(slash),
      headers: endToEnd(request.rawHeaders, (name) => name === "content-length" || name === "expect"),
      body,
      signal: abort.signal,
    });
  } catch (error) {
    body.discard();
    answerBroken(response, messageOf(error));
    return;
  }
  if (done.kind === "refused") {
    const close = body.unasked ? { connection: "close" } : {};
    body.discard();
    response.writeHead(503, { [forwardHeader]: done.why, ...close });
    response.end();
    return;
  }
  const { answer } = done;
  const headers = endToEnd(answer.rawHeaders, (name) => name === forwardHeader);
  try {
    passAnswer(answer, response, [...headers, forwardHeader, answered]);
  } catch {
    // A head that the parser takes and nobody can say, such as the status 099.
    answer.destroy();
    answerBroken(response, "what came is not HTTP");
  }
}

function answerBroken(response: ServerResponse, why: string): void {
  if (response.destroyed) return;
  response.writeHead(502, { [forwardHeader]: broken, "content-type": "text/plain" });
  response.end(why);
}
