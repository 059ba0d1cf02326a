import type { X509Certificate } from "node:crypto";
import {
  Code,
  ConnectError,
  type ContextValues,
  createContextKey,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";
import { accessTo } from "./authorization.ts";
import { peerOf } from "./peer.ts";

/** What certificates of the cluster's say of who holds them. */
export interface Certified {
  /** The id of the worker that a certificate belongs to, asked at each call. Throws when it is nobody's, or counts no more. */
  readonly worker?: (certificate: X509Certificate) => Promise<string>;
  /** Whether a certificate is a gateway's or a scheduler's. */
  readonly controlPlane?: (certificate: X509Certificate) => boolean;
}

const workerKey = createContextKey<string | undefined>(undefined, { description: "worker" });

/**
 * Lets a call through only over a connection with the certificate that the authorization table asks for, in its time still.
 * A worker speaks for itself: a request that names another is refused.
 */
export function authenticateCertificate(certified: Certified): Interceptor {
  return (next) => async (request) => {
    const access = accessTo(request.service.typeName, request.method.localName);
    const certificate = certificateOf(request.contextValues);
    if (access?.by === "certificate" && access.of === "worker" && certified.worker !== undefined) {
      const workerId = await certified.worker(certificate);
      // Also of a call that is refused: the audit wants to know.
      request.contextValues.set(workerKey, workerId);
      if (!request.stream) refuseForAnother(request.message, workerId);
      return next(request);
    }
    if (
      access?.by === "certificate" &&
      access.of === "control plane" &&
      certified.controlPlane?.(certificate)
    ) {
      return next(request);
    }
    throw new ConnectError(
      `this certificate does not open ${request.service.typeName}/${request.method.name}`,
      Code.PermissionDenied,
    );
  };
}

/** For a server of both kinds: which of the two looks at a call is what the authorization table says of the method. */
export function authenticateEither(byToken: Interceptor, byCertificate: Interceptor): Interceptor {
  return (next) => {
    const [token, certificate] = [byToken(next), byCertificate(next)];
    return (request) =>
      accessTo(request.service.typeName, request.method.localName)?.by === "certificate"
        ? certificate(request)
        : token(request);
  };
}

/** The worker whose certificate a call was made with, if it was. */
export function findCertifiedWorker(values: ContextValues): string | undefined {
  return values.get(workerKey);
}

/** The worker whose certificate a call was made with. */
export function certifiedWorkerOf(context: Pick<HandlerContext, "values">): string {
  const workerId = findCertifiedWorker(context.values);
  if (workerId === undefined) throw new ConnectError("the call is no worker's", Code.Unauthenticated);
  return workerId;
}

/**
 * What the other end of a call's connection has shown. Connections live longer than certificates: their time is looked at
 * again. Throws ConnectError `Unauthenticated`.
 */
export function certificateOf(values: ContextValues): X509Certificate {
  const { certificate, refused } = peerOf(values);
  if (certificate === undefined) {
    const why =
      refused === undefined ? "shows no certificate" : `shows a certificate that is not taken: ${refused}`;
    throw new ConnectError(`the caller ${why}`, Code.Unauthenticated);
  }
  if (!(Date.parse(certificate.validTo) > Date.now())) {
    throw new ConnectError("the caller's certificate has expired", Code.Unauthenticated);
  }
  return certificate;
}

function refuseForAnother(message: object, workerId: string): void {
  const named = (message as { readonly workerId?: unknown }).workerId;
  if (named === undefined || named === workerId) return;
  throw new ConnectError(`worker ${workerId} may not speak for another`, Code.PermissionDenied);
}
