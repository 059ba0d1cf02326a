import { existsSync } from "node:fs";
import { join } from "node:path";
import { Program } from "./program.ts";

const python = join(import.meta.dir, "../../.cache/moto/bin/python");

/** A token of ECR as it was given out. */
export interface IssuedToken {
  /** The password; the user name is `AWS`. */
  readonly password: string;
  readonly expiresAtMs: number;
}

/**
 * moto, a server that does as AWS does: ECR, STS, S3 and the rest. No signature is checked, so any keys will do.
 *
 * Two doors. `server` is moto's own. `host` is one before it that puts right what moto does not do for ECR: tokens
 * live for `tokenLifeMs` (moto's ended in 2015), each is another, and ECR Public gives them too.
 */
export class Moto {
  /** `127.0.0.1:PORT`: AWS as it behaves, whatever host name is asked for. */
  readonly host: string;
  /** `127.0.0.1:PORT` of moto itself: for S3. */
  readonly server: string;
  /** Of tokens that are given out from now on. */
  tokenLifeMs = 12 * 3600_000;
  /** Answers `GetAuthorizationToken` and the calls of STS in place of moto, when it gives an answer. */
  answer: ((action: string) => Response | undefined) | undefined;
  /** `GetAuthorizationToken`, `AssumeRole`, …: what came to `host`, in order. */
  readonly actions: string[] = [];
  readonly issued: IssuedToken[] = [];
  readonly #program: Program;
  readonly #front: Bun.Server<undefined>;

  private constructor(program: Program, server: string) {
    this.#program = program;
    this.server = server;
    this.#front = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#pass(request) });
    this.host = `127.0.0.1:${this.#front.port}`;
  }

  static async start(): Promise<Moto> {
    if (!existsSync(python)) throw new Error("moto is not there: run `npm run setup`");
    const program = new Program([python, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], {
      env: { HOME: "/nonexistent", PYTHONUNBUFFERED: "1", AWS_EC2_METADATA_DISABLED: "true" },
    });
    try {
      const match = await program.waitFor(/Running on http:\/\/(127\.0\.0\.1:\d+)/, 60_000);
      return new Moto(program, match[1] as string);
    } catch (error) {
      await program.stop("SIGKILL");
      throw error;
    }
  }

  /** Whether a registry behind this ECR would let the password in now. */
  takes(password: string, nowMs = Date.now()): boolean {
    return this.issued.some((token) => token.password === password && nowMs < token.expiresAtMs);
  }

  /** Makes a bucket for `docker-registry`'s S3 store at {@link server}, by path and with any keys. */
  async createBucket(name: string): Promise<void> {
    const response = await fetch(`http://${this.server}/${name}`, {
      method: "PUT",
      headers: {
        Authorization: "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, Signature=0",
      },
    });
    if (!response.ok) throw new Error(`moto made no bucket ${name}: ${response.status}`);
  }

  async stop(): Promise<void> {
    await this.#front.stop(true);
    await this.#program.stop("SIGKILL");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #pass(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const body = await request.arrayBuffer();
    const target = request.headers.get("x-amz-target");
    const action =
      target?.split(".").at(-1) ?? new URLSearchParams(Buffer.from(body).toString()).get("Action");
    if (action !== null && action !== undefined) {
      this.actions.push(action);
      const instead = this.answer?.(action);
      if (instead !== undefined) return instead;
    }
    // moto knows no ECR Public.
    if (target === "SpencerFrontendService.GetAuthorizationToken") {
      return Response.json({ authorizationData: this.#token("public-auth-token") });
    }
    const headers = new Headers(request.headers);
    headers.delete("host");
    headers.delete("accept-encoding");
    const answer = await fetch(`http://${this.server}${url.pathname}${url.search}`, {
      method: request.method,
      headers,
      redirect: "manual",
      ...(body.byteLength === 0 ? {} : { body }),
    });
    if (action !== "GetAuthorizationToken" || !answer.ok) return answer;
    const { authorizationData } = (await answer.json()) as {
      authorizationData: { authorizationToken: string }[];
    };
    const rewritten = authorizationData.map((data) => {
      const [, password = ""] = Buffer.from(data.authorizationToken, "base64").toString().split(":");
      return { ...data, ...this.#token(password) };
    });
    return Response.json({ authorizationData: rewritten });
  }

  #token(base: string): { authorizationToken: string; expiresAt: number } {
    const password = `${base}-${this.issued.length + 1}`;
    const expiresAtMs = Date.now() + this.tokenLifeMs;
    this.issued.push({ password, expiresAtMs });
    return {
      authorizationToken: Buffer.from(`AWS:${password}`).toString("base64"),
      expiresAt: expiresAtMs / 1000,
    };
  }
}
