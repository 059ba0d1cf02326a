import type { IncomingMessage, ServerResponse } from "node:http";
import type { IdentityIssuer } from "../secret/identity-issuer.ts";
import { logger } from "../std/log.ts";

const log = logger("gateway");

/** For how long verifiers may keep an answer; much less than a new key is published before it signs. */
const keptSeconds = 3600;

type Published = Pick<IdentityIssuer, "url" | "discovery" | "keySet">;

/**
 * Answers what clouds ask an OpenID Connect issuer, to anybody: both documents are public. They stand below the issuer's
 * path, and at the root too, for a proxy in front that takes the path away.
 *
 * @returns false when the request is for something else
 */
export function answerWellKnown(
  issuer: Published,
  request: IncomingMessage,
  response: ServerResponse,
): boolean {
  if (request.method !== "GET" && request.method !== "HEAD") return false;
  const path = (request.url ?? "").split("?", 1)[0] ?? "";
  const base = new URL(issuer.url).pathname.replace(/\/$/, "");
  const document = path.startsWith(`${base}/`) ? path.slice(base.length) : path;
  const made = documentAt(issuer, document);
  if (made === undefined) return false;
  made.then(
    (body) => {
      response.writeHead(200, {
        "content-type": "application/json",
        "cache-control": `public, max-age=${keptSeconds}`,
        "x-content-type-options": "nosniff",
      });
      response.end(request.method === "HEAD" ? undefined : JSON.stringify(body));
    },
    (error: unknown) => {
      log.error("the keys of the identity issuer cannot be told", { error });
      response.writeHead(503, { "content-type": "text/plain", "retry-after": "10" });
      response.end("try again\n");
    },
  );
  return true;
}

function documentAt(issuer: Published, path: string): Promise<object> | undefined {
  if (path === "/.well-known/openid-configuration") return Promise.resolve(issuer.discovery());
  if (path === "/.well-known/jwks.json") return issuer.keySet();
  return undefined;
}
