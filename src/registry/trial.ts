import type { RepositoryApi, Traffic } from "./api.ts";
import { RegistryError } from "./error.ts";
import { KnownManifests } from "./known-manifests.ts";
import { Resolver } from "./resolve.ts";
import { type CredentialRights, findRights } from "./rights.ts";

/** Where a credential is tried. */
export interface TrialPlace {
  readonly registry: string;
  /** `undefined`: at the registry alone, as a login is. */
  readonly repository: string | undefined;
  /** Of a manifest in the repository, where one is known. */
  readonly digest?: string | undefined;
  /** What else may be there; by default `latest`. */
  readonly tag?: string | undefined;
}

export interface TrialOptions {
  /** Whether the right to push is tried, where no token says it. */
  readonly probePush: boolean;
  readonly signal: AbortSignal;
}

/** A credential that was not refused. */
export interface Trial {
  /** False: the registry gave what was asked for without asking who wants it, which proves nothing. */
  readonly proved: boolean;
  readonly rights: CredentialRights;
}

/**
 * Asks for the least that proves that a credential may pull: a manifest by HEAD, which no registry counts as a pull. Where
 * none is known and the tag is not there, one tag of the repository: some credentials may pull and not list tags, so that
 * refuses nothing by itself. Without a repository, the API's root (distribution specification, "Determining Support").
 */
export async function tryCredential(
  api: RepositoryApi,
  { digest, tag = "latest" }: TrialPlace,
  { probePush, signal }: TrialOptions,
): Promise<Trial> {
  const traffic: Traffic = { requests: 0, bytes: 0 };
  const { registry, repository } = api.where;
  const get = async (path: string, name: string): Promise<void> => {
    const headers = { Accept: "application/json" };
    const order = { brief: true };
    const request = { method: "GET", path, headers, name, accept: [200], traffic, signal, order } as const;
    (await api.ask(request)).answer.discard();
  };
  if (repository === "") {
    await get("", registry);
    return { proved: api.tookCredential, rights: "unknown" };
  }
  const noBlobs = (): Promise<never> => Promise.reject(new Error("a trial reads no blobs"));
  const resolver = new Resolver(api, traffic, new KnownManifests(), noBlobs);
  try {
    await resolver.head(digest ?? tag, signal);
  } catch (error) {
    if (digest !== undefined || !mayBeAbsent(error)) throw error;
    await get("tags/list?n=1", `${registry}/${repository}`).catch((other: unknown) => {
      throw mayBeAbsent(other) ? error : other;
    });
  }
  const proved = api.tookCredential;
  return { proved, rights: proved ? await findRights(api, probePush, signal) : "unknown" };
}

/** Registries say so of what is not there, or of what the credential may not. */
function mayBeAbsent(error: unknown): boolean {
  return error instanceof RegistryError && ["not_found", "denied", "protocol"].includes(error.code);
}
