import { type IssuerFetch, issuerTimeoutMs } from "../credential/issuer.ts";
import type { Egress, EgressRequest } from "./egress.ts";
import { RegistryError, type Where } from "./error.ts";

/** More than any issuer says; whoever asks has a smaller limit of his own. */
const bodySizeBytesMax = 256 * 1024;
const methods: ReadonlySet<string> = new Set(["GET", "POST", "PUT"]);
const bodiless: ReadonlySet<number> = new Set([204, 205, 304]);

/**
 * Where clouds tell a machine who it is: EC2, Azure and Google (169.254.169.254), ECS tasks and EKS pods. For the
 * operator's own identities and nobody else's.
 */
const metadataOrigins: readonly string[] = [
  "http://169.254.169.254",
  "http://[fd00:ec2::254]",
  "http://169.254.170.2",
  "http://169.254.170.23",
  "http://[fd00:ec2::23]",
  "http://metadata.google.internal",
];

/**
 * The way to issuers of credentials (AWS, Google, Entra, a registry's own exchange): HTTPS to public addresses, as the
 * egress judges them. A redirect comes back as the answer that it is.
 *
 * @returns rejects with RegistryError `egress_refused`, `unreachable`, `tls`, `timeout`, `too_large`; none of them names
 * more than the host
 */
export function issuerFetch(egress: Egress): IssuerFetch {
  return async (text, init) => {
    const url = parse(text);
    const where = whereOf(url);
    // Credentials are issued over it: also where registries may be spoken to in the clear.
    if (url.protocol !== "https:") throw refusal(where, `${url.host} would be asked without encryption`);
    return await ask(egress, url, where, init, false);
  };
}

/**
 * The way to metadata services: plain HTTP to link-local addresses, and exactly to those.
 *
 * @param more origins that the operator's identities name beside the usual ones
 */
export function metadataFetch(egress: Egress, more: readonly string[]): IssuerFetch {
  const allowed = new Set([...metadataOrigins, ...more].map((origin) => new URL(origin).origin));
  return async (text, init) => {
    const url = parse(text);
    const where = whereOf(url);
    if (!allowed.has(url.origin)) throw refusal(where, `${url.host} is no metadata service`);
    return await ask(egress, url, where, init, true);
  };
}

async function ask(
  egress: Egress,
  url: URL,
  where: Where,
  init: RequestInit,
  metadata: boolean,
): Promise<Response> {
  const request = new Request("https://issuer.invalid", { ...init, signal: null });
  const { method } = request;
  if (!methods.has(method)) throw refusal(where, `${url.host} would be asked by ${method}`);
  const limit = AbortSignal.timeout(issuerTimeoutMs);
  const answer = await egress.send({
    method: method as EgressRequest["method"],
    url,
    headers: Object.fromEntries(request.headers),
    ...(init.body == null ? {} : { body: new Uint8Array(await request.arrayBuffer()) }),
    where,
    signal: init.signal ? AbortSignal.any([init.signal, limit]) : limit,
    order: { brief: true },
    trusted: metadata,
    direct: metadata,
  });
  const { status, headers } = answer;
  const body = await answer.bytes(bodySizeBytesMax);
  return new Response(bodiless.has(status) ? null : new Uint8Array(body), { status, headers });
}

function parse(text: string): URL {
  const url = URL.parse(text);
  if (url === null) throw refusal({ registry: "issuer", repository: "" }, "an issuer's address is not a URL");
  url.hash = "";
  return url;
}

function whereOf(url: URL): Where {
  return { registry: url.host, repository: "" };
}

function refusal(where: Where, message: string): RegistryError {
  return new RegistryError("egress_refused", message, where, {
    next: "Check the credential, and what the operator's configuration says of this host.",
  });
}
