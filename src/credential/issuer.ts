import { IssuedAuthorizations } from "./issued.ts";

/** Sends a request to an issuer of credentials. The platform's `fetch`, or a test's way to its loopback server. */
export type IssuerFetch = (url: string, init: RequestInit) => Promise<Response>;

/** What providers need from outside. All optional; the defaults are right in the product. */
export interface ProviderDependencies {
  readonly fetch?: IssuerFetch;
  readonly now?: () => number;
  /** In place of `https://api.ecr.REGION.amazonaws.com`. The operator's and the tests' choice, never a tenant's. */
  readonly ecrEndpoint?: string;
  /** Where issued authorizations are kept; by default one store for the process. */
  readonly issued?: IssuedAuthorizations;
}

export const issuerTimeoutMs = 20_000;
const bodySizeBytesMax = 64 * 1024;
const processWide = new IssuedAuthorizations();

export function issuedOf(dependencies: ProviderDependencies): IssuedAuthorizations {
  return dependencies.issued ?? processWide;
}

export function fetchOf(dependencies: ProviderDependencies): IssuerFetch {
  return dependencies.fetch ?? ((url, init) => fetch(url, init));
}

/** One request to an issuer: no redirect is followed, the time is bounded and the body is, too. */
export async function askIssuer(
  send: IssuerFetch,
  url: string,
  init: RequestInit,
): Promise<{ readonly status: number; readonly headers: Headers; readonly body: Uint8Array<ArrayBuffer> }> {
  const limit = AbortSignal.timeout(issuerTimeoutMs);
  const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
  const response = await send(url, { ...init, redirect: "manual", signal });
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of response.body ?? []) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > bodySizeBytesMax) throw new Error("the issuer's answer is too large");
    chunks.push(chunk);
  }
  return { status: response.status, headers: response.headers, body: new Uint8Array(Buffer.concat(chunks)) };
}
