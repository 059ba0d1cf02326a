import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { type ContextValues, createContextKey } from "@connectrpc/connect";

type Body = IncomingMessage | Http2ServerRequest;

const bodyKey = createContextKey<Body | undefined>(undefined, { description: "body" });

/** Adds to a call's values its body, which nobody has read. */
export function withUnreadBody(values: ContextValues, request: Body): ContextValues {
  return values.set(bodyKey, request);
}

/** Whether a call came over HTTP/2. */
export function hasUnreadStream(values: ContextValues): boolean {
  return "stream" in (values.get(bodyKey) ?? {});
}

/**
 * Lets the body of a call that is refused come and go, and resolves when it has: answered before that, Bun 1.4.5 counts what
 * still comes against the connection, and refuses its other calls. A body that is longer than one may be breaks the call off.
 */
export async function discardBody(values: ContextValues, bytesMax: number): Promise<void> {
  const body = values.get(bodyKey);
  if (body === undefined || body.readableEnded) return;
  let bytes = 0;
  await new Promise<void>((resolve) => {
    body.on("data", (piece: Buffer) => {
      bytes += piece.length;
      if (bytes > bytesMax) body.destroy();
    });
    for (const end of ["end", "close", "error", "aborted"]) body.once(end, () => resolve());
  });
}
