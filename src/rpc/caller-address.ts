import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { type ContextValues, createContextKey, createContextValues } from "@connectrpc/connect";

const addressKey = createContextKey<string | undefined>(undefined, { description: "address of the caller" });

/** What a server knows of a connection: the address at its other end. Headers such as `X-Forwarded-For` are not believed. */
export function connectionValues(request: IncomingMessage | Http2ServerRequest): ContextValues {
  const { remoteAddress } = request.socket;
  // An IPv4 caller of a server that listens on `::` (RFC 4291, 2.5.5.2).
  const address = remoteAddress?.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/, "");
  return createContextValues().set(addressKey, address);
}

/** The address of the caller's host; of a proxy when there is one in front. */
export function addressOf(values: ContextValues): string | undefined {
  return values.get(addressKey);
}
