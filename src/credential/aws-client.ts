import { CredentialError } from "./error.ts";
import type { AwsKeys } from "./issuer.ts";
import { askIssuer, type IssuerFetch, issuerTimeoutMs } from "./issuer.ts";

/** What an API of AWS is asked with. */
export interface AwsCall {
  readonly region: string;
  /** Origin, `https://sts.eu-west-1.amazonaws.com`. */
  readonly endpoint: string;
  /** Absent: the call is not signed. */
  readonly keys?: AwsKeys;
  readonly send: IssuerFetch;
}

/** No answer came from AWS. Ours, so that it can be told from everything that AWS says. */
export class NoAnswerError extends Error {
  override readonly name = "NoAnswerError";
}

/**
 * The settings of a client of AWS's SDK. Everything that the SDK would otherwise look up in the environment, in `~/.aws`
 * or at the metadata service is given here, endpoint and retry mode included: a tenant's keys never meet the node's own,
 * nor its settings.
 */
export function clientSettings(call: AwsCall) {
  return {
    region: call.region,
    endpoint: call.endpoint,
    credentials: call.keys === undefined ? noKeys : sdkKeys(call.keys),
    maxAttempts: 3,
    retryMode: "standard",
    defaultsMode: "standard",
    useFipsEndpoint: false,
    useDualstackEndpoint: false,
    userAgentAppId: "oci-node",
    authSchemePreference: [] as string[],
    requestHandler: requestHandler(call.send) as never,
  } as const;
}

/** For the options of `send`: all attempts together get as long as one request to any other issuer. */
export function callLimit(): { readonly abortSignal: AbortSignal } {
  return { abortSignal: AbortSignal.timeout(issuerTimeoutMs) };
}

function sdkKeys({ accessKeyId, secretAccessKey, sessionToken }: AwsKeys) {
  return {
    accessKeyId,
    secretAccessKey: secretAccessKey.expose(),
    ...(sessionToken === undefined ? {} : { sessionToken: sessionToken.expose() }),
  };
}

async function noKeys(): Promise<never> {
  throw new Error("a call that needs no keys was to be signed");
}

interface SdkRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: Uint8Array<ArrayBuffer> | string;
}

/** The SDK's port for HTTP, on `fetch`. Host and Content-Length are fetch's own business. */
function requestHandler(send: IssuerFetch): object {
  return {
    metadata: { handlerProtocol: "http/1.1" },
    destroy: () => undefined,
    async handle(request: SdkRequest, options?: { abortSignal?: AbortSignal }): Promise<object> {
      const port = request.port === undefined ? "" : `:${request.port}`;
      const headers = new Headers(request.headers);
      headers.delete("host");
      headers.delete("content-length");
      const answer = await askIssuer(send, `${request.protocol}//${request.hostname}${port}${request.path}`, {
        method: request.method,
        headers,
        ...(request.body === undefined ? {} : { body: request.body }),
        ...(options?.abortSignal === undefined ? {} : { signal: options.abortSignal }),
      }).catch((cause: unknown) => {
        throw cause instanceof CredentialError ? cause : new NoAnswerError("no answer", { cause });
      });
      return {
        response: {
          statusCode: answer.status,
          headers: Object.fromEntries(answer.headers),
          body: answer.body,
        },
      };
    },
  };
}
