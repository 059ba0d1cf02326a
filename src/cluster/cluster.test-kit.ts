import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from "node:crypto";
import { TlsIdentity } from "../std/tls-identity.ts";
import { importSigningKey, issueCertificate, makeAuthority, type Signer } from "./certificate.ts";
import { controlPlaneName, schedulerName, workerName } from "./names.ts";

/** A cluster's authority that a test holds in its hand, key and all. */
export class TestCluster {
  readonly signer: Signer;

  private constructor(signer: Signer) {
    this.signer = signer;
  }

  static async make(): Promise<TestCluster> {
    const { certificate, privateKey } = await makeAuthority(Date.now());
    return new TestCluster({ certificate, privateKey: await importSigningKey(privateKey) });
  }

  /** What a gateway or scheduler of it shows. */
  async controlPlane(lifeMs?: number): Promise<TlsIdentity> {
    return await this.identity([controlPlaneName, schedulerName], lifeMs);
  }

  /** What a worker of it shows. */
  async worker(workerId: string, lifeMs?: number): Promise<TlsIdentity> {
    return await this.identity([workerName(workerId)], lifeMs);
  }

  /** @param keyPem the key; absent: a new one */
  async identity(
    names: readonly [string, ...string[]],
    lifeMs = 60_000,
    keyPem = newKey(),
  ): Promise<TlsIdentity> {
    const privateKey = createPrivateKey(keyPem);
    const publicKey = createPublicKey(privateKey);
    const spki = Uint8Array.from(publicKey.export({ type: "spki", format: "der" }));
    const { pem } = await issueCertificate(this.signer, { publicKey: spki, names, lifeMs, now: Date.now() });
    return new TlsIdentity({
      certificate: pem,
      privateKey: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
      authorities: this.signer.certificate,
    });
  }
}

function newKey(): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ type: "pkcs8", format: "pem" }) as string;
}

/** A certificate as Node reads it. */
export function certificateOf({ certificate }: TlsIdentity): X509Certificate {
  return new X509Certificate(certificate);
}
