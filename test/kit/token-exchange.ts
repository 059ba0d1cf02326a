import type { TokenVerifier } from "./token-verifier.ts";

/** Google's security token service, for one workload identity provider: a workspace's token in, an access token out. */
export class TokenExchange {
  readonly verifier: TokenVerifier;
  readonly #audience: string;
  readonly #accessToken: string;
  readonly #server: Bun.Server<undefined>;

  constructor(verifier: TokenVerifier, audience: string, accessToken: string) {
    this.verifier = verifier;
    this.#audience = audience;
    this.#accessToken = accessToken;
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#answer(request) });
  }

  get origin(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const form = new URLSearchParams(await request.text());
    const url = new URL(request.url);
    if (request.method !== "POST" || url.pathname !== "/v1/token") return new Response("", { status: 404 });
    if (!(await this.verifier.accepts(form.get("subject_token") ?? "", this.#audience)))
      return Response.json({ error: "invalid_grant" }, { status: 400 });
    return Response.json({ access_token: this.#accessToken, token_type: "Bearer", expires_in: 3600 });
  }
}
