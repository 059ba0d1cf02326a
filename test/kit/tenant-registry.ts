import { join } from "node:path";
import type { LocalImage } from "./oci-layout.ts";

/** What a tenant's own registry has of a blob: `undefined` is nothing, though it claims to have it. */
export type Given = (digest: string, bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer> | undefined;

/**
 * A registry that a tenant runs by himself, of one image, open to all: it claims every layer, and gives what it likes.
 */
export class TenantRegistry {
  /** Requests for blobs as `METHOD DIGEST`. */
  readonly requests: string[] = [];
  image: LocalImage | undefined;
  /** It was open to all until now. */
  closed = false;
  given: Given = (_, bytes) => bytes;
  readonly #server: Bun.Server<undefined>;

  constructor() {
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#answer(request) });
  }

  get host(): string {
    return `127.0.0.1:${this.#server.port}`;
  }

  async stop(): Promise<void> {
    await this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const { image } = this;
    if (this.closed)
      return new Response(null, { status: 401, headers: { "www-authenticate": 'Basic realm="tenant"' } });
    const { pathname } = new URL(request.url);
    const name = pathname.split("/").at(-1) ?? "";
    if (image === undefined) return new Response(null, { status: 404 });
    const isManifest = pathname.includes("/manifests/");
    const digest = isManifest ? image.manifestDigest : name;
    const file = Bun.file(join(image.dir, "blobs/sha256", digest.replace("sha256:", "")));
    if (!(await file.exists())) return new Response(null, { status: 404 });
    const type = isManifest ? "application/vnd.oci.image.manifest.v1+json" : "application/octet-stream";
    const headers = { "content-type": type, "docker-content-digest": digest };
    if (!isManifest) this.requests.push(`${request.method} ${digest}`);
    if (request.method === "HEAD")
      return new Response(null, { headers: { ...headers, "content-length": String(file.size) } });
    const bytes = isManifest ? await file.bytes() : this.given(digest, await file.bytes());
    if (bytes === undefined)
      return Response.json({ errors: [{ code: "BLOB_UNKNOWN", message: "no" }] }, { status: 404 });
    const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "");
    if (match === null) return new Response(bytes, { headers });
    const [start, end] = [Number(match[1]), Math.min(Number(match[2]), bytes.length - 1)];
    return new Response(bytes.slice(start, end + 1), {
      status: 206,
      headers: { ...headers, "content-range": `bytes ${start}-${end}/${bytes.length}` },
    });
  }
}
