import { CredentialError } from "../credential/error.ts";
import type { Answer } from "./answer.ts";
import type { RepositoryApi } from "./api.ts";
import { RegistryError } from "./error.ts";
import { actionsIn } from "./grant.ts";

/** What a credential may do in a repository; `unknown`: the registry does not say. */
export type CredentialRights = "pull" | "push" | "unknown";

const cancelTimeoutMs = 10_000;
const wide: readonly string[] = ["push", "delete", "*"];

/**
 * Whether a credential that may pull may push as well. Where there is a token service, it is asked for a token for both, and a
 * JWT's `access` says what it granted (distribution, "Token Authentication Specification"). What nothing says is tried only
 * with `probePush`: an upload is begun and cancelled at once, so that nothing is ever stored.
 */
export async function findRights(
  api: RepositoryApi,
  probePush: boolean,
  signal: AbortSignal,
): Promise<CredentialRights> {
  try {
    const { repository } = api.where;
    const token = await api.session.tokenFor([`repository:${repository}:pull,push`], signal);
    const said = token?.exchanged === true && token.echoed !== true;
    const actions = said ? actionsIn(token.value, repository) : undefined;
    if (actions !== undefined) return wide.some((action) => actions.has(action)) ? "push" : "pull";
    if (!probePush) return "unknown";
    const header =
      token === undefined ? (await api.session.ticket(signal)).header : `Bearer ${token.value.expose()}`;
    return header === undefined ? "unknown" : await probe(api, header, signal);
  } catch (error) {
    signal.throwIfAborted();
    // It may pull, which was asked before this: what is denied is the rest.
    if (error instanceof RegistryError) return error.code === "denied" ? "pull" : "unknown";
    if (error instanceof CredentialError) return "unknown";
    throw error;
  }
}

/** Begins an upload (distribution specification, "Pushing a blob"). */
async function probe(api: RepositoryApi, header: string, signal: AbortSignal): Promise<CredentialRights> {
  const { egress, where } = api;
  const answer = await egress.send({
    method: "POST",
    url: new URL("blobs/uploads/", api.root.href),
    headers: { Authorization: header, "Content-Length": "0" },
    where,
    signal,
    order: { brief: true },
  });
  answer.discard();
  if (answer.status === 401 || answer.status === 403 || answer.status === 405) return "pull";
  if (answer.status !== 202 && answer.status !== 201) return "unknown";
  await cancel(api, header, answer);
  return "push";
}

/** What was begun is cancelled, also when nobody waits any more. One that cannot be is removed by its registry in time. */
async function cancel(api: RepositoryApi, header: string, { headers }: Answer): Promise<void> {
  const url = URL.parse(headers.get("location") ?? "", api.root.href);
  if (url === null) return;
  // Behind a proxy that ends TLS some write the scheme that they see themselves.
  if (url.host === api.root.host) url.protocol = api.root.protocol;
  if (url.origin !== api.root.origin) return;
  try {
    const signal = AbortSignal.timeout(cancelTimeoutMs);
    const { where, egress } = api;
    const request = { method: "DELETE", url, headers: { Authorization: header }, where, signal } as const;
    (await egress.send({ ...request, order: { brief: true } })).discard();
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
  }
}
