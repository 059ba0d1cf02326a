import { createHmac, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LocalImage } from "./oci-layout.ts";
import type { Ask, QuirkNet } from "./quirk-net.ts";

/** How a store signs its URLs: S3 and R2, Azure's SAS, CloudFront, Google. */
export type Signing = "aws" | "azure" | "cloudfront" | "google";

export interface BlobRules {
  readonly host: string;
  readonly signing: Signing;
  /** How long a URL is good. */
  readonly lifeSeconds: number;
}

/** What a plain client sends; anything beside it would be a second authorization, or the registry's business. */
const plainHeaders: ReadonlySet<string> = new Set([
  "host",
  "user-agent",
  "accept",
  "accept-encoding",
  "connection",
  "range",
]);

/**
 * Where a registry's blobs are: GET with the URL that was signed for it and nothing else. It refuses, as S3 and Azure do,
 * an Authorization header beside the signature, HEAD on what is signed for GET, and what is over.
 */
export class BlobHost {
  readonly #net: QuirkNet;
  readonly #rules: BlobRules;
  readonly #key = randomBytes(32);
  readonly #paths = new Map<string, string>();
  /** Refusals so far, by reason: a well-behaved client causes none but `expired`. */
  readonly refusals: string[] = [];

  constructor(net: QuirkNet, rules: BlobRules) {
    this.#net = net;
    this.#rules = rules;
    net.route(rules.host, "/", (ask) => this.#answer(ask));
  }

  add(image: LocalImage): void {
    const digests = [configDigest(image), ...image.layers.map(({ digest }) => digest)];
    for (const digest of digests) this.#paths.set(digest, blobPath(image, digest));
  }

  /** A URL for the blob that is good from now on. Planted: nobody but this host may see its signature. */
  sign(digest: string): string {
    const { host, signing, lifeSeconds } = this.#rules;
    const nowMs = this.#net.now();
    const endsAtMs = nowMs + lifeSeconds * 1000;
    const signature = this.#signature(digest, endsAtMs);
    this.#net.plant(`a signed URL of ${host}`, signature, [host]);
    const basicDate = new Date(nowMs).toISOString().replace(/[-:]|\.\d+/g, "");
    const query = {
      aws: { "X-Amz-Date": basicDate, "X-Amz-Expires": lifeSeconds, "X-Amz-Signature": signature },
      google: { "X-Goog-Date": basicDate, "X-Goog-Expires": lifeSeconds, "X-Goog-Signature": signature },
      azure: { se: new Date(endsAtMs).toISOString(), sp: "r", sig: signature },
      cloudfront: { Expires: Math.floor(endsAtMs / 1000), Signature: signature, "Key-Pair-Id": "K1" },
    }[signing];
    const url = new URL(`https://${host}/${digest.replace(":", "/")}`);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, String(value));
    url.searchParams.set("end", String(endsAtMs));
    return url.href;
  }

  #answer(ask: Ask): Response {
    const digest = ask.url.pathname.slice(1).replace("/", ":");
    const path = this.#paths.get(digest);
    const reason = this.#refusal(ask, digest);
    if (reason !== undefined) {
      this.refusals.push(reason);
      const status = ["expired", "method", "signature"].includes(reason) ? 403 : 400;
      return new Response(`<Error><Code>${reason}</Code></Error>`, { status });
    }
    return path === undefined ? new Response("no such key", { status: 404 }) : serveFile(path, ask);
  }

  #refusal({ method, url, headers }: Ask, digest: string): string | undefined {
    const end = Number(url.searchParams.get("end"));
    const names = ["X-Amz-Signature", "X-Goog-Signature", "sig", "Signature"];
    const signature = names.map((name) => url.searchParams.get(name)).find((value) => value !== null);
    if (headers.has("authorization")) return "second authorization";
    const strange = [...headers.keys()].find((name) => !plainHeaders.has(name));
    if (strange !== undefined) return `unsigned header ${strange}`;
    if (method !== "GET") return "method";
    if (signature !== this.#signature(digest, end)) return "signature";
    return this.#net.now() < end ? undefined : "expired";
  }

  #signature(digest: string, endsAtMs: number): string {
    return createHmac("sha256", this.#key).update(`GET ${digest} ${endsAtMs}`).digest("hex");
  }
}

function configDigest(image: LocalImage): string {
  const manifest = JSON.parse(readFileSync(blobPath(image, image.manifestDigest), "utf8"));
  return manifest.config.digest;
}

export function blobPath(image: LocalImage, digest: string): string {
  return join(image.dir, "blobs/sha256", digest.slice("sha256:".length));
}

/** A file, or the part of it that `Range` asks for. */
export function serveFile(path: string, ask: Ask, headers: Record<string, string> = {}): Response {
  const file = Bun.file(path);
  const range = /^bytes=(\d+)-(\d*)$/.exec(ask.headers.get("range") ?? "");
  if (range === null) return new Response(file, { headers });
  const start = Number(range[1]);
  const end = Math.min(range[2] === "" ? file.size : Number(range[2]) + 1, file.size);
  const field = `bytes ${start}-${end - 1}/${file.size}`;
  return new Response(file.slice(start, end), {
    status: 206,
    headers: { ...headers, "content-range": field },
  });
}
