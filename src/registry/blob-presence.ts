import type { RepositoryApi, Traffic } from "./api.ts";
import { blobName } from "./blob-problem.ts";
import type { Descriptor } from "./descriptor.ts";
import { RegistryError } from "./error.ts";

/** Statuses of those who have the blob, and do not say so to a HEAD: storages sign their URLs for one method. */
const sayingNothing = [400, 403, 405, 501];

/**
 * Whether a registry says that a repository has a blob of this size: by HEAD, or where that says nothing by its first byte
 * (distribution specification, "Pulling blobs"). Only the registry is asked. Whatever else it answers is no yes.
 *
 * @throws CredentialError
 */
export async function hasBlob(
  api: RepositoryApi,
  blob: Descriptor,
  traffic: Traffic,
  signal: AbortSignal,
): Promise<boolean> {
  const path = `blobs/${blob.digest}`;
  const common = { path, name: blobName(api.where, blob), traffic, signal, order: { brief: true } };
  try {
    const accept = [200, 404, ...sayingNothing];
    const { answer: head } = await api.ask({ ...common, method: "HEAD", headers: {}, accept });
    const { status, length } = head;
    head.discard();
    if (status === 404) return false;
    if (status === 200 && length !== undefined) return length === blob.size;
    const headers = { Range: "bytes=0-0" };
    const { answer } = await api.ask({ ...common, method: "GET", headers, accept: [206] });
    const total = /^bytes 0-0\/(\d{1,15})$/i.exec(answer.headers.get("content-range") ?? "")?.[1];
    answer.discard();
    return Number(total) === blob.size;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof RegistryError) return false;
    throw error;
  }
}
