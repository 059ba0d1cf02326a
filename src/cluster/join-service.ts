import type { X509Certificate } from "node:crypto";
import type { ServiceImpl } from "@connectrpc/connect";
import type { JoinService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { callerOf } from "../rpc/authentication.ts";
import { addressOf } from "../rpc/caller-address.ts";
import { certifiedWorkerOf } from "../rpc/certificate-authentication.ts";
import { logger } from "../std/log.ts";
import type { ClusterAuthorities } from "./authorities.ts";
import { readRequest } from "./certificate.ts";
import { ClusterError } from "./error.ts";
import type { WorkerIdentityStore } from "./identity-store.ts";
import { keySha256, workerIdOf, workerIdOfKey, workerName } from "./names.ts";

const log = logger("cluster");
const nameCharactersMax = 253;

export interface JoinDependencies {
  readonly authorities: ClusterAuthorities;
  readonly identities: WorkerIdentityStore;
  /** Of a worker's certificate. */
  readonly lifeMs: number;
}

/** Lets hosts in, each for the id that is its key's. */
export function joinService(dependencies: JoinDependencies): ServiceImpl<typeof JoinService> {
  const { authorities, identities } = dependencies;
  const certify = async (request: string) => {
    const publicKey = await readRequest(request);
    const workerId = workerIdOfKey(publicKey);
    const { pem, serial, notAfter } = await authorities.issue(
      publicKey,
      [workerName(workerId)],
      dependencies.lifeMs,
    );
    return {
      issued: { workerId, certificateSerial: serial, certificateNotAfter: notAfter },
      publicKeySha256: keySha256(publicKey),
      response: { workerId, certificate: pem, authorities: authorities.pem },
    };
  };
  return {
    async joinCluster({ certificateRequest, name }, context) {
      checkName(name);
      const { tokenId } = callerOf(context);
      const { issued, publicKeySha256, response } = await certify(certificateRequest);
      const joinedFrom = addressOf(context.values) ?? "";
      // Written down before it is given out: what nobody knows of could not be revoked.
      await identities.join({ ...issued, publicKeySha256, name, tokenId, joinedFrom });
      log.info("worker joined", { worker: issued.workerId, name, from: joinedFrom, token: tokenId });
      return response;
    },
    async renewCertificate({ certificateRequest }, context) {
      const caller = certifiedWorkerOf(context);
      const { issued, publicKeySha256, response } = await certify(certificateRequest);
      if (issued.workerId !== caller) {
        throw new ClusterError("bad_request", `worker ${caller} asks for a certificate for another key`);
      }
      await identities.renew(issued, publicKeySha256);
      return response;
    },
  };
}

/** The worker that a certificate of the cluster's belongs to, when that counts now. Throws ClusterError. */
export function certifiedWorker(identities: WorkerIdentityStore) {
  return async (certificate: X509Certificate): Promise<string> => {
    const workerId = workerIdOf(certificate);
    if (workerId === undefined) throw new ClusterError("not_joined", "the certificate is no worker's");
    const spki = certificate.publicKey.export({ type: "spki", format: "der" });
    await identities.admit(workerId, keySha256(spki));
    return workerId;
  };
}

function checkName(name: string): void {
  if (name.length > 0 && name.length <= nameCharactersMax && !/[\p{C}\s]/u.test(name)) return;
  throw new ClusterError(
    "bad_request",
    `a worker's name has 1 to ${nameCharactersMax} characters, without spaces and control characters`,
    { next: "Set worker.name." },
  );
}
