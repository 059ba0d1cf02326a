import type { IssuerFetch } from "../credential/issuer.ts";
import { type CredentialProvider, provedAnew } from "../credential/provider.ts";
import type { Platform } from "../reference/platform.ts";
import type { Reference } from "../reference/reference.ts";
import { sleep } from "../std/wait.ts";
import type { ResolveHost } from "./addresses.ts";
import { RepositoryApi, type Traffic } from "./api.ts";
import { Blobs } from "./blob.ts";
import { hasBlob } from "./blob-presence.ts";
import type { BlobSourceStats, ReadOptions } from "./blob-source.ts";
import type { Descriptor } from "./descriptor.ts";
import { Egress } from "./egress.ts";
import { RegistryError, type Where } from "./error.ts";
import { type FailedLogins, processFailedLogins } from "./failed-logins.ts";
import { issuerFetch, metadataFetch } from "./issuer-fetch.ts";
import { KnownManifests } from "./known-manifests.ts";
import { type Minted, type MintedPull, Minter, type MintOptions } from "./mint.ts";
import { Mirrors } from "./mirror.ts";
import { type RegistryPolicy, resolvePolicy } from "./policy.ts";
import type { PullLimit } from "./pull-limit.ts";
import type { Repository, ResolvedImage } from "./repository.ts";
import { Resolver } from "./resolve.ts";
import type { Clock } from "./retry.ts";
import { type Trial, type TrialOptions, type TrialPlace, tryCredential } from "./trial.ts";
import { type WebhookPost, webhookPost } from "./webhook-post.ts";

export interface RegistryClientOptions {
  readonly policy: RegistryPolicy;
  /** `oci-node/VERSION`, for the registry's log. */
  readonly userAgent?: string;
  readonly clock?: Clock;
  readonly resolveHost?: ResolveHost;
  /** By default those of the process. */
  readonly failedLogins?: FailedLogins;
  /** Origins of metadata services that the operator's identities name, beside the usual ones. */
  readonly metadataHosts?: readonly string[];
}

interface Shared {
  readonly api: RepositoryApi;
  readonly blobs: Blobs;
  readonly minter: Minter;
  readonly known: KnownManifests;
}

const repositoriesMax = 500;
const wholeBlobSizeBytesMax = 8 * 1024 * 1024;

const systemClock: Clock = {
  now: () => performance.timeOrigin + performance.now(),
  sleep,
  random: Math.random,
};

/**
 * The registries of the world, asked from this process. One per process: what requests share (tokens, redirects, address
 * look-ups, circuit breakers) is shared here, by credential and repository.
 */
export class RegistryClient {
  /** How issuers of credentials are asked: HTTPS, public addresses, the operator's settings of the host. */
  readonly issuerFetch: IssuerFetch;
  /** How metadata services are asked, for the operator's own identities only. */
  readonly metadataFetch: IssuerFetch;
  /** How the webhooks of tenants are sent to: as issuers are asked, apart from all else. */
  readonly webhooks: WebhookPost;
  readonly #egress: Egress;
  readonly #clock: Clock;
  readonly #mirrors: Mirrors;
  readonly #failedLogins: FailedLogins;
  readonly #known = new KnownManifests();
  readonly #shared = new Map<string, Shared>();

  constructor(options: RegistryClientOptions) {
    this.#clock = options.clock ?? systemClock;
    this.#failedLogins = options.failedLogins ?? processFailedLogins;
    const egress = {
      policy: resolvePolicy(options.policy),
      userAgent: options.userAgent ?? "oci-node",
      resolveHost: options.resolveHost,
      now: this.#clock.now,
    };
    this.#egress = new Egress(egress);
    this.webhooks = webhookPost(egress);
    this.#mirrors = new Mirrors(this.#egress, this.#clock.now);
    this.issuerFetch = issuerFetch(this.#egress);
    this.metadataFetch = metadataFetch(this.#egress, options.metadataHosts ?? []);
  }

  /**
   * A repository, with one credential for it. Asks nobody yet.
   *
   * @throws RegistryError `egress_refused` when the credential is for another registry
   */
  repository(reference: Reference, provider: CredentialProvider): Repository {
    return this.#repository(reference, provider, this.#sharedFor(reference, provider));
  }

  /**
   * What somebody else may pull the reference's repository with for a while, got with the credential: the token service's
   * token, or what the credential's issuer made. Cached, and proved by a HEAD of the reference's manifest when it was made.
   *
   * @throws RegistryError `unauthorized`, `denied`, `expired`, `not_found`, …; CredentialError
   */
  mintPull(
    reference: Reference,
    provider: CredentialProvider,
    signal: AbortSignal,
    options: MintOptions = {},
  ): Promise<Minted> {
    const shared = this.#sharedFor(reference, provider);
    const repository = this.#repository(reference, provider, shared);
    const wanted = reference.digest ?? reference.tag ?? "latest";
    if (provider.type === "public") return Promise.resolve(undefined);
    return shared.minter.mint(
      { manifest: wanted, ask: (limit) => repository.headManifest(wanted, limit) },
      signal,
      options,
    );
  }

  /** What {@link mintPull} made before, without asking anybody now; `over`: it has ended. */
  mintedPull(reference: Reference, provider: CredentialProvider): MintedPull | "over" | undefined {
    return this.#sharedFor(reference, provider).minter.peek();
  }

  /**
   * Tries a credential itself: nothing that was agreed with it before counts, its issuer is asked anew, and nothing of what
   * is got is kept.
   *
   * @throws RegistryError, CredentialError
   */
  tryCredential(at: TrialPlace, provider: CredentialProvider, options: TrialOptions): Promise<Trial> {
    const where = { registry: at.registry, repository: at.repository ?? "" };
    const fresh = provedAnew(provider);
    return tryCredential(
      new RepositoryApi(where, fresh, this.#egress, this.#clock, this.#failedLogins),
      at,
      options,
    );
  }

  /** The credential is not used any more: what was agreed with it, tokens above all, goes. */
  forget({ provider, reference }: Pick<Repository, "provider" | "reference">): void {
    this.#shared.delete(keyOf(reference, provider));
  }

  #repository(reference: Reference, provider: CredentialProvider, shared: Shared): Repository {
    const mirrored = (this.#egress.policy.mirrors.get(reference.registry) ?? []).length > 0;
    return new RemoteRepository(reference, provider, mirrored, shared);
  }

  #sharedFor(reference: Reference, provider: CredentialProvider): Shared {
    const where = { registry: reference.registry, repository: reference.repository };
    if (provider.registry !== reference.registry) {
      throw new RegistryError(
        "egress_refused",
        `the credential is for ${provider.registry}, not for ${where.registry}`,
        where,
        {
          next: `Give a credential for ${where.registry}.`,
        },
      );
    }
    const key = keyOf(where, provider);
    const known = this.#shared.get(key);
    this.#shared.delete(key);
    const shared = known ?? this.#newShared(where, provider);
    this.#shared.set(key, shared);
    const oldest = this.#shared.keys().next();
    if (this.#shared.size > repositoriesMax && !oldest.done) this.#shared.delete(oldest.value);
    return shared;
  }

  #newShared(where: Where, provider: CredentialProvider): Shared {
    const api = new RepositoryApi(where, provider, this.#egress, this.#clock, this.#failedLogins);
    const { totalTimeoutMs } = this.#egress.policy;
    const minter = new Minter(api.session, where, this.#clock, totalTimeoutMs);
    return { api, blobs: new Blobs(api, this.#mirrors), minter, known: this.#known };
  }
}

function keyOf({ registry, repository }: Where, { fingerprint }: CredentialProvider): string {
  return `${fingerprint} ${registry}/${repository}`;
}

class RemoteRepository implements Repository {
  readonly reference: Reference;
  readonly provider: CredentialProvider;
  readonly mirrored: boolean;
  readonly #shared: Shared;
  readonly #traffic: Traffic = { requests: 0, bytes: 0 };
  readonly #resolver: Resolver;

  constructor(reference: Reference, provider: CredentialProvider, mirrored: boolean, shared: Shared) {
    this.reference = reference;
    this.provider = provider;
    this.mirrored = mirrored;
    this.#shared = shared;
    this.#resolver = new Resolver(shared.api, this.#traffic, shared.known, async (config, signal) => {
      // A manifest can name anybody's; a mirror asks nobody for a credential.
      if (mirrored && !(await this.hasBlob(config, signal))) this.doubtBlob(config);
      return await this.blob(config, signal);
    });
  }

  headManifest(tagOrDigest: string, signal: AbortSignal): Promise<Descriptor> {
    return this.#resolver.head(tagOrDigest, signal);
  }

  resolve(platform: Platform, signal: AbortSignal): Promise<ResolvedImage> {
    return this.#resolver.resolve(this.reference, platform, signal);
  }

  async blob(
    descriptor: Descriptor,
    signal: AbortSignal,
    sizeBytesMax = wholeBlobSizeBytesMax,
  ): Promise<Uint8Array> {
    if (descriptor.size > sizeBytesMax) {
      const { where } = this.#shared.api;
      throw new RegistryError(
        "too_large",
        `a blob of ${where.registry}/${where.repository} has ${descriptor.size} bytes, more than the ${sizeBytesMax} allowed`,
        where,
        {
          next: "Check the image: its configuration is not that large.",
        },
      );
    }
    return Buffer.concat(await Array.fromAsync(this.streamBlob(descriptor, 0, signal)));
  }

  openBlob(
    descriptor: Descriptor,
    start: number,
    end: number,
    signal: AbortSignal,
    options?: ReadOptions,
  ): Promise<Uint8Array> {
    return this.#shared.blobs.range(descriptor, start, end, this.#traffic, signal, options);
  }

  streamBlob(descriptor: Descriptor, start: number, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#shared.blobs.stream(descriptor, start, this.#traffic, signal);
  }

  hasBlob(descriptor: Descriptor, signal: AbortSignal): Promise<boolean> {
    return hasBlob(this.#shared.api, descriptor, this.#traffic, signal);
  }

  doubtBlob(descriptor: Descriptor): void {
    this.#shared.blobs.doubt(descriptor);
  }

  traffic(): BlobSourceStats {
    return { ...this.#traffic };
  }

  tookCredential(): boolean {
    return this.#shared.api.tookCredential;
  }

  pullLimit(): PullLimit | undefined {
    return this.#shared.api.pullLimit;
  }
}
