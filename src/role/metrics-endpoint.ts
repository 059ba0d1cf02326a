import type { IncomingMessage, ServerResponse } from "node:http";
import { type Exposition, renderMetrics } from "../health/metrics.ts";
import type { MetricsStore } from "../health/metrics-store.ts";
import { bearerOf, type VerifyToken } from "../rpc/authentication.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { SingleFlight } from "../std/single-flight.ts";

const log = logger("gateway");
const everything = "*";

/**
 * `GET /metrics` for Prometheus, with a bearer token: an administrator's gives everything, a workspace's its own series only.
 * The values are read at each scrape; scrapes of the same at once share one.
 */
export class MetricsEndpoint {
  readonly #store: MetricsStore;
  readonly #verify: VerifyToken;
  readonly #more: (workspaceId: string | undefined) => Promise<string>;
  readonly #scrapes = new SingleFlight<Exposition>();

  /** @param more what is counted in this process, in the same format; of all workspaces where none is named */
  constructor(
    store: MetricsStore,
    verify: VerifyToken,
    more: (workspaceId: string | undefined) => Promise<string>,
  ) {
    this.#store = store;
    this.#verify = verify;
    this.#more = more;
  }

  /** @returns false when the request is for something else */
  answer(request: IncomingMessage, response: ServerResponse): boolean {
    if ((request.url ?? "").split("?", 1)[0] !== "/metrics") return false;
    this.#answer(request, response).catch((error: unknown) => {
      log.error("the metrics cannot be told", { error: messageOf(error) });
      if (response.headersSent) response.end();
      else plain(response, 503, "try again\n", { "retry-after": "10" });
    });
    return true;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== "GET" && request.method !== "HEAD")
      return plain(response, 405, "only GET\n", { allow: "GET, HEAD" });
    const token = bearerOf(request.headers.authorization);
    const caller = token === undefined ? undefined : await this.#verify(token);
    if (caller === undefined)
      return plain(response, 401, "a token of oci-node is needed, as Authorization: Bearer\n", {
        "www-authenticate": 'Bearer realm="oci-node"',
      });
    const { role, workspaceId } = caller;
    if (role !== "admin" && workspaceId === undefined)
      return plain(response, 403, `a token with the role ${role} may not read metrics\n`, {});
    const scope = role === "admin" ? undefined : workspaceId;
    const { contentType, text } = await this.#scrapes.run(scope ?? everything, async () => {
      const rendered = await renderMetrics(await this.#store.read(scope));
      return { ...rendered, text: rendered.text + (await this.#more(scope)) };
    });
    response.writeHead(200, { "content-type": contentType, "cache-control": "no-store" });
    response.end(request.method === "HEAD" ? undefined : text);
  }
}

function plain(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>>,
): void {
  response.writeHead(status, { "content-type": "text/plain", ...headers });
  response.end(text);
}
