import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** A request as it came in, for {@link checkSignature}. */
export interface SignedRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
  readonly body: Buffer;
}

export interface SigningKey {
  readonly secret: string;
  readonly sessionToken?: string | undefined;
}

export type SignatureVerdict =
  | { readonly ok: true; readonly accessKeyId: string }
  | {
      readonly ok: false;
      readonly problem:
        | "missing"
        | "unknown_key"
        | "scope"
        | "session_token"
        | "early"
        | "late"
        | "signature";
    };

const skewMs = 5 * 60_000;
const sha256 = (data: Buffer | string): string => createHash("sha256").update(data).digest("hex");
const hmac = (key: Buffer | string, data: string): Buffer => createHmac("sha256", key).update(data).digest();

/**
 * Checks a request by Signature Version 4, as AWS does: key, scope (day, region, service), the headers that have to be
 * signed, the time, and the signature itself. Written from "Create a signed AWS API request" (IAM User Guide), not from the
 * library that signs.
 */
export function checkSignature(
  request: SignedRequest,
  scope: { readonly region: string; readonly service: string },
  keyOf: (accessKeyId: string) => SigningKey | undefined,
  nowMs: number,
): SignatureVerdict {
  const no = (problem: Extract<SignatureVerdict, { ok: false }>["problem"]): SignatureVerdict => ({
    ok: false,
    problem,
  });
  const match =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$/.exec(
      request.headers.get("authorization") ?? "",
    );
  const date = request.headers.get("x-amz-date") ?? "";
  if (match === null || !/^\d{8}T\d{6}Z$/.test(date)) return no("missing");
  const [, accessKeyId = "", day = "", region = "", service = "", names = "", signature = ""] = match;
  const key = keyOf(accessKeyId);
  if (key === undefined) return no("unknown_key");
  if (region !== scope.region || service !== scope.service || !date.startsWith(day)) return no("scope");
  const signed = names.split(";");
  const mustSign = [...request.headers.keys()].filter((name) => name.startsWith("x-amz-"));
  if (!["host", ...mustSign].every((name) => signed.includes(name))) return no("missing");
  if ((request.headers.get("x-amz-security-token") ?? undefined) !== key.sessionToken) {
    return no("session_token");
  }
  const atMs = Date.parse(date.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, "$1-$2-$3T$4:$5:$6Z"));
  if (atMs < nowMs - skewMs) return no("late");
  if (atMs > nowMs + skewMs) return no("early");
  const canonical = [
    request.method,
    request.url.pathname,
    request.url.search.slice(1),
    ...signed.map((name) => `${name}:${(request.headers.get(name) ?? "").trim().replace(/ +/g, " ")}`),
    "",
    names,
    sha256(request.body),
  ].join("\n");
  const day4 = [day, region, service, "aws4_request"];
  const signingKey = day4.reduce<Buffer | string>((from, part) => hmac(from, part), `AWS4${key.secret}`);
  const text = ["AWS4-HMAC-SHA256", date, day4.join("/"), sha256(canonical)].join("\n");
  const right = timingSafeEqual(hmac(signingKey, text), Buffer.from(signature, "hex"));
  return right ? { ok: true, accessKeyId } : no("signature");
}
