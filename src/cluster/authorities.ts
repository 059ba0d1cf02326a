import { X509Certificate } from "node:crypto";
import { type Keyring, openUnder, type SealPlace, sealUnder } from "../secret/keyring.ts";
import type { AuthorityRow, AuthorityStore } from "./authority-store.ts";
import {
  type IssuedCertificate,
  importSigningKey,
  issueCertificate,
  makeAuthority,
  type Signer,
} from "./certificate.ts";
import { authorityId, type TrustedAuthority } from "./join-token.ts";

/**
 * The authorities of the cluster, as a gateway or scheduler has them: all are trusted, the newest signs. Its key is opened
 * once and cannot be taken out of the process again by anything that runs in it.
 */
export class ClusterAuthorities {
  /** The newest first. */
  readonly trusted: readonly TrustedAuthority[];
  /** PEM of all. */
  readonly pem: string;
  readonly #signer: Signer;

  private constructor(trusted: readonly TrustedAuthority[], signer: Signer) {
    this.trusted = trusted;
    this.pem = trusted.map(({ certificate }) => certificate).join("");
    this.#signer = signer;
  }

  /** Opens them; makes the first where there is none. Throws SecretError `undecryptable`. */
  static async open(store: AuthorityStore, ring: Keyring): Promise<ClusterAuthorities> {
    const rows = await store.ensure(() => make(ring));
    const [newest] = rows as [AuthorityRow, ...AuthorityRow[]];
    const pkcs8 = await openUnder(ring, placeOf(newest.id), {
      sealed: newest.wrappedPrivateKey,
      keyId: newest.keyId,
    });
    const privateKey = await importSigningKey(Uint8Array.from(pkcs8));
    pkcs8.fill(0);
    const trusted = rows.map(({ id, certificatePem }) => ({ id, certificate: `${certificatePem.trim()}\n` }));
    return new ClusterAuthorities(trusted, { certificate: newest.certificatePem, privateKey });
  }

  /** Signs a certificate. @param publicKey SubjectPublicKeyInfo, DER */
  async issue(
    publicKey: Uint8Array<ArrayBuffer>,
    names: readonly [string, ...string[]],
    lifeMs: number,
  ): Promise<IssuedCertificate> {
    return await issueCertificate(this.#signer, { publicKey, names, lifeMs, now: Date.now() });
  }
}

async function make(ring: Keyring): Promise<AuthorityRow> {
  const { certificate, privateKey } = await makeAuthority(Date.now());
  const id = authorityId(new X509Certificate(certificate).raw);
  const { sealed, keyId } = await sealUnder(ring, placeOf(id), privateKey);
  privateKey.fill(0);
  return { id, certificatePem: certificate, wrappedPrivateKey: sealed, keyId };
}

function placeOf(id: string): SealPlace {
  return { kind: "cluster authority", id, part: "private key" };
}
