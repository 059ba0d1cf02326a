import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { bearerOf, type VerifyToken } from "./authentication.ts";
import { peerAt } from "./peer.ts";

/** What is read of a request whose sender is not known. */
export const strangersBytesMax = 64 * 1024;
const rememberedMs = 60_000;
const rememberedMax = 1_000;
const encodings = ["content-encoding", "connect-content-encoding", "grpc-encoding"];

/**
 * Whose requests may be large. A request is in memory, whole, before any handler is asked about its sender: strangers could
 * fill that with as many as they like. What a sender may do is not decided here, nor by what is remembered here.
 */
export class KnownSenders {
  readonly #verify: VerifyToken;
  /** SHA-256 of tokens that counted, the oldest first → until when that is remembered. */
  readonly #until = new Map<string, number>();

  constructor(verify: VerifyToken) {
    this.#verify = verify;
  }

  /** Whether the request may be large; false also where it says that it is not. */
  mayBeLarge(request: IncomingMessage | Http2ServerRequest): boolean | Promise<boolean> {
    if (saysSmall(request)) return false;
    if (peerAt(request).certificate !== undefined) return true;
    const token = bearerOf(request.headers.authorization);
    if (token === undefined) return false;
    const name = createHash("sha256").update(token).digest("base64");
    return (this.#until.get(name) ?? 0) > performance.now() || this.#look(token, name);
  }

  async #look(token: string, name: string): Promise<boolean> {
    // Whoever cannot be asked now is asked again when the call is judged, and says then what is the matter.
    const caller = await this.#verify(token).catch(() => undefined);
    if (caller === undefined) return false;
    this.#until.delete(name);
    this.#until.set(name, performance.now() + rememberedMs);
    const [oldest] = this.#until.keys();
    if (this.#until.size > rememberedMax && oldest !== undefined) this.#until.delete(oldest);
    return true;
  }
}

/** What is compressed may be larger than it says. */
function saysSmall({ headers }: IncomingMessage | Http2ServerRequest): boolean {
  const bytes = headers["content-length"] ?? "";
  return (
    /^\d{1,7}$/.test(bytes) &&
    Number(bytes) <= strangersBytesMax &&
    encodings.every((name) => headers[name] === undefined)
  );
}
