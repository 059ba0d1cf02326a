import { readFileSync } from "node:fs";
import { digestOf, type LocalImage } from "./oci-layout.ts";
import { hostPlatform } from "./platform.ts";
import { type Gate, registryError } from "./quirk-auth.ts";
import { type BlobHost, blobPath, serveFile } from "./quirk-blobs.ts";
import type { Ask, QuirkNet } from "./quirk-net.ts";

export interface QuirkRegistryRules {
  /** Where the API is: `registry-1.docker.io`. */
  readonly apiHost: string;
  readonly gate: Gate;
  /** Where layers are redirected to, and how; absent: the registry sends them itself. */
  readonly blobs?: { readonly host: BlobHost; readonly status: 302 | 307 };
  /** More headers of an answer about a manifest, or another answer. */
  readonly onManifest?: (ask: Ask) => Response | Record<string, string>;
}

interface Held {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
}

const types = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
};

/** A registry that holds images of ours and answers as one registry of the world does. Reading only. */
export class QuirkRegistry {
  readonly #rules: QuirkRegistryRules;
  /** By repository and tag or digest. */
  readonly #manifests = new Map<string, Held>();
  readonly #images = new Map<string, LocalImage>();

  constructor(net: QuirkNet, rules: QuirkRegistryRules) {
    this.#rules = rules;
    net.route(rules.apiHost, "/v2/", (ask) => this.#answer(ask));
  }

  /** Puts an image there under a tag, as an index of one platform. */
  add(repository: string, tag: string, image: LocalImage): void {
    const manifest = readFileSync(blobPath(image, image.manifestDigest));
    const platform = hostPlatform();
    const one = { mediaType: types.manifest, digest: image.manifestDigest, size: manifest.length, platform };
    const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: types.index, manifests: [one] }));
    this.#manifests.set(`${repository} ${image.manifestDigest}`, {
      bytes: manifest,
      mediaType: types.manifest,
    });
    for (const name of [tag, digestOf(index)])
      this.#manifests.set(`${repository} ${name}`, { bytes: index, mediaType: types.index });
    this.#images.set(repository, image);
    this.#rules.blobs?.host.add(image);
  }

  #answer(ask: Ask): Response {
    const match = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(ask.url.pathname);
    const [, repository = "", kind, name = ""] = match ?? [];
    const refused = this.#rules.gate(ask, repository);
    if (refused !== undefined) return refused;
    if (match === null) return Response.json({});
    return kind === "manifests" ? this.#manifest(ask, repository, name) : this.#blob(ask, repository, name);
  }

  #manifest(ask: Ask, repository: string, name: string): Response {
    const more = this.#rules.onManifest?.(ask) ?? {};
    if (more instanceof Response) return more;
    const held = this.#manifests.get(`${repository} ${name}`);
    if (held === undefined) {
      const code = this.#images.has(repository) ? "MANIFEST_UNKNOWN" : "NAME_UNKNOWN";
      return registryError(404, code, "not known", more);
    }
    const accepted = (ask.headers.get("accept") ?? "").includes(held.mediaType);
    if (!accepted) return registryError(404, "MANIFEST_UNKNOWN", "not in a form that is accepted", more);
    const headers = {
      ...more,
      "content-type": held.mediaType,
      "docker-content-digest": digestOf(held.bytes),
      "content-length": String(held.bytes.length),
    };
    return new Response(ask.method === "HEAD" ? null : (held.bytes as Uint8Array<ArrayBuffer>), { headers });
  }

  #blob(ask: Ask, repository: string, digest: string): Response {
    const image = this.#images.get(repository);
    if (image === undefined) return registryError(404, "BLOB_UNKNOWN");
    const { blobs } = this.#rules;
    if (blobs === undefined) return serveFile(blobPath(image, digest), ask);
    return new Response(null, { status: blobs.status, headers: { location: blobs.host.sign(digest) } });
  }
}
