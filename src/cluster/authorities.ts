import { X509Certificate } from "node:crypto";
import { SecretError } from "../secret/error.ts";
import { type Keyring, openUnder, type SealPlace, sealUnder } from "../secret/keyring.ts";
import { logger } from "../std/log.ts";
import type { AuthorityRow, AuthorityStore } from "./authority-store.ts";
import {
  type IssuedCertificate,
  importSigningKey,
  issueCertificate,
  makeAuthority,
  type Signer,
} from "./certificate.ts";
import { authorityId, type TrustedAuthority } from "./join-token.ts";

const log = logger("cluster");

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

  /**
   * Opens them; makes the first where there is none. Of the older ones those count that can be opened, too: whoever only writes
   * the table cannot have his own trusted. Throws SecretError `undecryptable` for the newest.
   */
  static async open(store: AuthorityStore, ring: Keyring): Promise<ClusterAuthorities> {
    const [newest, ...older] = (await store.ensure(() => make(ring))) as [AuthorityRow, ...AuthorityRow[]];
    const signer = await openRow(ring, newest);
    const trusted = [trustedOf(newest)];
    for (const row of older) {
      try {
        await openRow(ring, row);
        trusted.push(trustedOf(row));
      } catch (error) {
        if (!(error instanceof SecretError) || error.code !== "undecryptable") throw error;
        log.error("an authority is not trusted: its row does not open", { authority: row.id });
      }
    }
    return new ClusterAuthorities(trusted, signer);
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

/** A row's key is bound to its id, and that is its certificate's hash: none of them is another's. */
async function openRow(ring: Keyring, { id, certificatePem, ...row }: AuthorityRow): Promise<Signer> {
  if (idOf(certificatePem) !== id)
    throw new SecretError(
      "undecryptable",
      `the certificate of the cluster's authority ${id} is another one`,
      {
        next: "Restore the table cluster_authorities from a backup: somebody else has written to it.",
      },
    );
  const pkcs8 = await openUnder(ring, placeOf(id), { sealed: row.wrappedPrivateKey, keyId: row.keyId });
  try {
    return { certificate: certificatePem, privateKey: await importSigningKey(Uint8Array.from(pkcs8)) };
  } finally {
    pkcs8.fill(0);
  }
}

function idOf(pem: string): string | undefined {
  try {
    return authorityId(new X509Certificate(pem).raw);
  } catch {
    return undefined;
  }
}

function trustedOf({ id, certificatePem }: AuthorityRow): TrustedAuthority {
  return { id, certificate: `${certificatePem.trim()}\n` };
}

function placeOf(id: string): SealPlace {
  return { kind: "cluster authority", id, part: "private key" };
}
