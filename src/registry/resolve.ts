import { assertDigest, digestOf, isDigest } from "../reference/digest.ts";
import { formatPlatform, normalizePlatform, type Platform } from "../reference/platform.ts";
import { formatReference, type Reference } from "../reference/reference.ts";
import type { ApiAnswer, RepositoryApi, Traffic } from "./api.ts";
import { acceptedManifests, type Descriptor } from "./descriptor.ts";
import { RegistryError } from "./error.ts";
import { type ImageConfig, imageConfigSchema } from "./image-config.ts";
import type { Fetched, KnownManifests } from "./known-manifests.ts";
import { listPlatforms, type Manifest, parseManifest, pickPlatform } from "./manifest.ts";
import type { ResolvedImage } from "./repository.ts";

const manifestSizeBytesMax = 4 * 1024 * 1024;
/** An index of indexes of images, and no deeper. */
const depthMax = 3;

/** From a tag or digest to an image: manifests fetched, verified and followed. */
export class Resolver {
  readonly #api: RepositoryApi;
  readonly #traffic: Traffic;
  readonly #known: KnownManifests;
  readonly #blob: (blob: Descriptor, signal: AbortSignal) => Promise<Uint8Array>;

  constructor(
    api: RepositoryApi,
    traffic: Traffic,
    known: KnownManifests,
    blob: (blob: Descriptor, signal: AbortSignal) => Promise<Uint8Array>,
  ) {
    this.#api = api;
    this.#traffic = traffic;
    this.#known = known;
    this.#blob = blob;
  }

  /** The descriptor behind a tag or digest by HEAD, or by GET where a registry's HEAD says too little. */
  async head(tagOrDigest: string, signal: AbortSignal): Promise<Descriptor> {
    const headed = await this.#head(tagOrDigest, signal);
    return headed ?? (await this.#fetch(tagOrDigest, signal)).descriptor;
  }

  /** `undefined` where the registry's HEAD says too little. A refusal (403) says why only to a GET. */
  async #head(tagOrDigest: string, signal: AbortSignal): Promise<Descriptor | undefined> {
    const { answer } = await this.#ask("HEAD", tagOrDigest, signal, [200, 400, 403, 405, 501]);
    const digest = answer.headers.get("docker-content-digest");
    const mediaType = contentType(answer.headers);
    const size = answer.length;
    answer.discard();
    if (
      answer.status === 200 &&
      digest !== null &&
      isDigest(digest) &&
      mediaType !== "" &&
      size !== undefined &&
      size > 0
    ) {
      this.#checkDigest(tagOrDigest, digest);
      return { mediaType, digest, size };
    }
    return undefined;
  }

  /** The image of a reference for a platform. */
  async resolve(reference: Reference, platform: Platform, signal: AbortSignal): Promise<ResolvedImage> {
    const name = formatReference(reference);
    let fetched = await this.#first(reference.digest ?? reference.tag ?? "latest", signal);
    for (let depth = 1; fetched.manifest.kind === "index"; depth += 1) {
      if (depth >= depthMax) throw this.#problem("protocol", `${name} is an index of indexes of indexes`);
      const chosen = pickPlatform(fetched.manifest.entries, platform) ?? onlyNested(fetched.manifest);
      if (chosen === undefined)
        throw this.#noSuchPlatform(name, platform, listPlatforms(fetched.manifest.entries));
      fetched = this.#kept(chosen.digest) ?? (await this.#fetch(chosen.digest, signal, chosen));
    }
    const { config, layers } = fetched.manifest;
    const configBytes = await this.#blob(config, signal);
    const imageConfig = this.#parseConfig(configBytes, name);
    if (!fits(imageConfig, platform)) {
      throw this.#noSuchPlatform(name, platform, `${imageConfig.os}/${imageConfig.architecture}`);
    }
    const { descriptor: manifest, bytes: manifestBytes } = fetched;
    return { manifest, config, layers, manifestBytes, configBytes, imageConfig };
  }

  /** A GET is counted as a pull, where pulls are; a HEAD proves access and says whether a GET is needed at all. */
  async #first(tagOrDigest: string, signal: AbortSignal): Promise<Fetched> {
    if (!this.#counted) return await this.#fetch(tagOrDigest, signal);
    const headed = await this.#head(tagOrDigest, signal);
    if (headed === undefined) return await this.#fetch(tagOrDigest, signal);
    return this.#kept(headed.digest) ?? (await this.#fetch(headed.digest, signal));
  }

  /** Whether the registry counts pulls: Docker Hub does, others that say so. */
  get #counted(): boolean {
    return this.#api.where.registry === "docker.io" || this.#api.pullLimit !== undefined;
  }

  #kept(digest: string): Fetched | undefined {
    return this.#counted ? this.#known.get(this.#api.where, digest) : undefined;
  }

  async #fetch(tagOrDigest: string, signal: AbortSignal, expected?: Descriptor): Promise<Fetched> {
    const { answer } = await this.#ask("GET", tagOrDigest, signal, [200]);
    const said = answer.headers.get("docker-content-digest");
    const type = contentType(answer.headers);
    const bytes = await answer.bytes(manifestSizeBytesMax);
    const digest = digestOf(bytes);
    this.#checkDigest(tagOrDigest, digest);
    if (said !== null && isDigest(said) && said !== digest) this.#checkDigest(said, digest);
    if (expected !== undefined && expected.size !== bytes.length) {
      throw this.#problem(
        "digest_mismatch",
        `the manifest ${short(digest)} has not the size that its index says`,
      );
    }
    const { registry, repository } = this.#api.where;
    const name = `${registry}/${repository}${isDigest(tagOrDigest) ? "@" : ":"}${tagOrDigest}`;
    const manifest = parseManifest(bytes, type, name, this.#api.where);
    const descriptor = { mediaType: manifest.mediaType, digest, size: bytes.length };
    if (this.#counted) this.#known.keep(this.#api.where, { descriptor, bytes, manifest });
    return { descriptor, bytes, manifest };
  }

  #ask(
    method: "GET" | "HEAD",
    tagOrDigest: string,
    signal: AbortSignal,
    accept: readonly number[],
  ): Promise<ApiAnswer> {
    const byDigest = tagOrDigest.includes(":");
    const target = byDigest ? assertDigest(tagOrDigest) : tagOrDigest;
    const { registry, repository } = this.#api.where;
    return this.#api.ask({
      method,
      path: `manifests/${encodeURIComponent(target).replaceAll("%3A", ":")}`,
      headers: { Accept: acceptedManifests },
      name: `${registry}/${repository}${byDigest ? "@" : ":"}${tagOrDigest}`,
      accept,
      traffic: this.#traffic,
      signal,
      order: { brief: true },
    });
  }

  #checkDigest(asked: string, digest: string): void {
    if (!isDigest(asked) || asked === digest) return;
    throw this.#problem("digest_mismatch", `the manifest ${short(asked)} came as ${short(digest)}`);
  }

  #parseConfig(bytes: Uint8Array, name: string): ImageConfig {
    try {
      return imageConfigSchema.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
    } catch {
      throw this.#problem("protocol", `the configuration of ${name} is malformed`);
    }
  }

  #noSuchPlatform(name: string, platform: Platform, available: string): RegistryError {
    const has = available === "" ? "" : `; it has ${available}`;
    return new RegistryError(
      "no_such_platform",
      `${name} has no image for ${formatPlatform(platform)}${has}`,
      this.#api.where,
      {
        next:
          available === ""
            ? "Name another image."
            : "Choose one of its platforms with --platform, or another image.",
      },
    );
  }

  #problem(code: "protocol" | "digest_mismatch", message: string): RegistryError {
    return new RegistryError(code, message, this.#api.where, {
      next: "What the registry sent is not sound: push the image again, or check any proxy in between.",
    });
  }
}

/** An index whose single entry names no platform: what it points to decides. */
function onlyNested(manifest: Manifest): Descriptor | undefined {
  if (manifest.kind !== "index" || manifest.entries.length !== 1) return undefined;
  const [only] = manifest.entries;
  return only?.platform === undefined ? only?.descriptor : undefined;
}

/** An image that does not say what it is for is taken at its manifest's word. */
function fits(config: ImageConfig, platform: Platform): boolean {
  if (config.os === "" || config.architecture === "") return true;
  const own = normalizePlatform({ os: config.os, architecture: config.architecture });
  const wanted = normalizePlatform(platform);
  return own.os === wanted.os && own.architecture === wanted.architecture;
}

function contentType(headers: Headers): string {
  return (headers.get("content-type") ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}

function short(digest: string): string {
  return `${digest.slice(0, 19)}…`;
}
