import { Moto } from "./moto.ts";

/** A request to the store, and what became of it. */
export interface StoreRequest {
  readonly method: string;
  /** By the query's signature, as somebody does who was redirected; the registry itself signs a header. */
  readonly presigned: boolean;
  readonly headers: readonly string[];
  readonly status: number;
}

const plainHeaders: ReadonlySet<string> = new Set([
  "host",
  "user-agent",
  "accept",
  "accept-encoding",
  "connection",
  "range",
]);

/**
 * moto's S3 for `docker-registry`'s store, and a door before it that refuses what S3 refuses and moto does not: a second
 * authorization or HEAD at a URL that was signed for GET, and one whose time is over.
 */
export class S3Store {
  static readonly bucket = "layers";
  /** `127.0.0.1:PORT`, where the registry keeps its blobs and where it redirects to. */
  readonly host: string;
  readonly requests: StoreRequest[] = [];
  readonly #moto: Moto;
  readonly #door: Bun.Server<undefined>;
  #over = false;

  private constructor(moto: Moto) {
    this.#moto = moto;
    this.#door = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#answer(request) });
    this.host = `127.0.0.1:${this.#door.port}`;
  }

  static async start(): Promise<S3Store> {
    const moto = await Moto.start();
    await moto.createBucket(S3Store.bucket);
    return new S3Store(moto);
  }

  /** `storage` of `docker-registry`'s configuration. */
  get settings(): object {
    return {
      accesskey: "store-key",
      secretkey: "store-secret",
      region: "us-east-1",
      regionendpoint: `http://${this.host}`,
      bucket: S3Store.bucket,
      secure: false,
      v4auth: true,
    };
  }

  /** What came with a signature in the URL, from the request numbered `from` on. */
  presigned(from = 0): StoreRequest[] {
    return this.requests.slice(from).filter(({ presigned }) => presigned);
  }

  /** Every URL that was signed so far is over; one that the registry signs from now on, after a look in here, is good. */
  endSigned(): void {
    this.#over = true;
  }

  async stop(): Promise<void> {
    await this.#door.stop(true);
    await this.#moto.stop();
  }

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const presigned = url.searchParams.has("X-Amz-Signature");
    if (!presigned) this.#over = false;
    const refused = presigned ? this.#refusal(request, url) : undefined;
    const answer = refused ?? (await this.#pass(request, url));
    const headers = [...request.headers.keys()];
    this.requests.push({ method: request.method, presigned, headers, status: answer.status });
    return answer;
  }

  #refusal({ method, headers }: Request, { searchParams }: URL): Response | undefined {
    const strange = [...headers.keys()].find((name) => !plainHeaders.has(name));
    if (strange !== undefined) return problem(400, "InvalidArgument");
    if (method !== "GET") return problem(403, "SignatureDoesNotMatch");
    return this.#over || endOf(searchParams) < Date.now() ? problem(403, "AccessDenied") : undefined;
  }

  async #pass(request: Request, url: URL): Promise<Response> {
    const headers = new Headers(request.headers);
    for (const name of ["host", "connection", "content-length"]) headers.delete(name);
    headers.set("accept-encoding", "identity");
    const body = await request.arrayBuffer();
    return fetch(`http://${this.#moto.server}${url.pathname}${url.search}`, {
      method: request.method,
      headers,
      redirect: "manual",
      decompress: false,
      ...(body.byteLength === 0 ? {} : { body }),
    });
  }
}

/** Milliseconds since 1970, out of `X-Amz-Date` (`20260102T030405Z`) and `X-Amz-Expires`. */
function endOf(query: URLSearchParams): number {
  const [year = 0, month = 0, day, hour, minute, second] = (query.get("X-Amz-Date") ?? "")
    .replace(/^(....)(..)(..)T(..)(..)(..)Z$/, "$1 $2 $3 $4 $5 $6")
    .split(" ")
    .map(Number);
  return Date.UTC(year, month - 1, day, hour, minute, second) + Number(query.get("X-Amz-Expires")) * 1000;
}

function problem(status: number, code: string): Response {
  return new Response(`<Error><Code>${code}</Code></Error>`, { status });
}
