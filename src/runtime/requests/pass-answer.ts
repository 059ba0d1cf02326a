import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";

/** An answer of HTTP/1.1, or of HTTP/2 with node:http2's compatible interface. */
export type AnyResponse = ServerResponse | Http2ServerResponse;

/**
 * Passes an answer on: its head at once, its body as it comes and no faster than it is taken. One that breaks off breaks off
 * here, too: half of it must not look like all of it. Throws, with nothing written, for a head that cannot be said.
 *
 * @param headers names and values in turn; of the message, not of a connection
 */
export function passAnswer(answer: IncomingMessage, response: AnyResponse, headers: readonly string[]): void {
  const { statusCode: status = 502, statusMessage: text = "" } = answer;
  let begun = false;
  if (response.destroyed) {
    answer.destroy();
    return;
  }
  writeHead(response, status, text, headers);
  answer.on("data", (piece: Buffer) => {
    begun = true;
    if (!(response as ServerResponse).write(piece)) answer.pause();
  });
  response.on("drain", () => answer.resume());
  answer.once("end", () => {
    begun = true;
    response.end();
  });
  answer.once("error", () => breakOff(response));
  answer.once("close", () => {
    if (!answer.complete) breakOff(response);
  });
  response.once("close", () => answer.destroy());
  // The first piece of a body often comes with the head: one packet. A body that is yet to come must not keep the head.
  setImmediate(() => {
    if (!begun && !response.destroyed && "flushHeaders" in response) response.flushHeaders();
  });
}

/** Ends an answer so that its receiver sees that it is not whole. */
export function breakOff(response: AnyResponse): void {
  if (response.destroyed || response.writableEnded) return;
  // Bun 1.4.5 ends an HTTP/2 stream well that is closed, whatever the code, or destroyed without an error.
  if ("stream" in response) response.stream.destroy(new Error("the answer broke off"));
  else response.destroy();
}

/** What a status line may say beside its number (RFC 9112, 4): the parser of node:http takes more. */
const reasonPhrase = /^[\t\x20-\x7e\x80-\xff]*$/;

function writeHead(response: AnyResponse, status: number, text: string, headers: readonly string[]): void {
  // Before anything of it is kept: a response remembers even the words that it has refused, and would refuse them again.
  if (status < 200 || status > 999 || !reasonPhrase.test(text))
    throw new RangeError(`${status} is no answer's status, or its words are none`);
  if ("stream" in response) response.writeHead(status, headers as never);
  else response.writeHead(status, text, headers as never);
}
