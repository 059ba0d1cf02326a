import { createPrivateKey, createPublicKey, randomBytes, type webcrypto } from "node:crypto";
import { ClusterError } from "./error.ts";

/** ECDSA on P-256 with SHA-256: what every key of the cluster is. */
export const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
/** Clocks of hosts may be apart by so much: certificates begin to count before they are made. */
export const backdateMs = 5 * 60_000;
const authorityYears = 10;
const serverAuth = "1.3.6.1.5.5.7.3.1";
const clientAuth = "1.3.6.1.5.5.7.3.2";
const requestCharactersMax = 8 * 1024;

type Key = webcrypto.CryptoKey;

/** Who signs. */
export interface Signer {
  readonly certificate: string;
  readonly privateKey: Key;
}

/** A certificate as it was made. */
export interface IssuedCertificate {
  readonly pem: string;
  /** Hex. */
  readonly serial: string;
  readonly notAfter: Date;
}

/** The library is large, and most processes never make a certificate; it wants its polyfill before it. */
async function x509() {
  await import("reflect-metadata");
  return await import("@peculiar/x509");
}

/** Loads what makes certificates, so that a process which will need it has it by then. */
export function loadCertificates(): void {
  // Who needs it and cannot have it says so.
  x509().catch(() => undefined);
}

/** Makes an authority: its certificate (PEM, ten years), and its private key (PKCS #8, DER), to be filled with zeros. */
export async function makeAuthority(now: number) {
  const lib = await x509();
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const { keyCertSign, cRLSign } = lib.KeyUsageFlags;
  const certificate = await lib.X509CertificateGenerator.createSelfSigned({
    name: `CN=oci-node cluster authority ${randomBytes(4).toString("hex")}`,
    keys,
    serialNumber: newSerial(),
    signingAlgorithm: algorithm,
    notBefore: new Date(now - backdateMs),
    notAfter: new Date(now + authorityYears * 365 * 24 * 3_600_000),
    extensions: [
      // It signs workers and gateways, and no authority below it.
      new lib.BasicConstraintsExtension(true, 0, true),
      new lib.KeyUsagesExtension(keyCertSign | cRLSign, true),
      await lib.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const privateKey = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey));
  return { certificate: certificate.toString("pem"), privateKey };
}

/** An authority's key, for signing alone: it cannot be taken out again. */
export async function importSigningKey(pkcs8: Uint8Array<ArrayBuffer>): Promise<Key> {
  return await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
}

/**
 * Signs a certificate for both ends of TLS connections, for these DNS names.
 *
 * @param publicKey SubjectPublicKeyInfo, DER
 */
export async function issueCertificate(
  signer: Signer,
  wanted: {
    readonly publicKey: Uint8Array<ArrayBuffer>;
    readonly names: readonly [string, ...string[]];
    readonly lifeMs: number;
    readonly now: number;
  },
): Promise<IssuedCertificate> {
  const lib = await x509();
  const authority = new lib.X509Certificate(signer.certificate);
  const serial = newSerial();
  // Certificates tell time in seconds.
  const notAfter = new Date(Math.floor((wanted.now + wanted.lifeMs) / 1000) * 1000);
  const certificate = await lib.X509CertificateGenerator.create({
    serialNumber: serial,
    subject: [{ CN: [wanted.names[0].slice(0, 64)] }],
    issuer: authority.subject,
    publicKey: new lib.PublicKey(wanted.publicKey),
    signingKey: signer.privateKey,
    signingAlgorithm: algorithm,
    notBefore: new Date(wanted.now - backdateMs),
    notAfter,
    extensions: [
      new lib.BasicConstraintsExtension(false, undefined, true),
      new lib.KeyUsagesExtension(lib.KeyUsageFlags.digitalSignature, true),
      new lib.ExtendedKeyUsageExtension([serverAuth, clientAuth]),
      new lib.SubjectAlternativeNameExtension(wanted.names.map((value) => ({ type: "dns", value }))),
      await lib.AuthorityKeyIdentifierExtension.create(authority.publicKey),
    ],
  });
  return { pem: certificate.toString("pem"), serial, notAfter };
}

/** A key pair as TLS and the library want it. */
export function keyPairOf(privateKeyPem: string) {
  const privateKey = createPrivateKey(privateKeyPem);
  const details = privateKey.asymmetricKeyDetails;
  if (privateKey.asymmetricKeyType !== "ec" || details?.namedCurve !== "prime256v1") {
    throw new ClusterError("identity_file", "the key is not an ECDSA key on P-256");
  }
  const publicKey = Uint8Array.from(createPublicKey(privateKey).export({ type: "spki", format: "der" }));
  return { privateKey, publicKey };
}

/** Asks for a certificate for a key (PKCS #10, PEM). What it may be used for is the authority's to say. */
export async function requestCertificate(privateKeyPem: string): Promise<string> {
  const lib = await x509();
  const { privateKey, publicKey } = keyPairOf(privateKeyPem);
  const pkcs8 = Uint8Array.from(privateKey.export({ type: "pkcs8", format: "der" }));
  const keys = {
    privateKey: await importSigningKey(pkcs8),
    publicKey: await crypto.subtle.importKey("spki", publicKey, algorithm, true, ["verify"]),
  };
  pkcs8.fill(0);
  const request = await lib.Pkcs10CertificateRequestGenerator.create({
    name: "CN=worker",
    keys,
    signingAlgorithm: algorithm,
  });
  return request.toString("pem");
}

/**
 * The public key (SubjectPublicKeyInfo, DER) of a request, of which it is proved that the sender has the private half.
 * Whatever else stands in the request is passed over. Throws ClusterError `bad_request`.
 */
export async function readRequest(pem: string): Promise<Uint8Array<ArrayBuffer>> {
  const refused = (why: string) => new ClusterError("bad_request", `the certificate request ${why}`);
  if (pem.length > requestCharactersMax) throw refused("is too long");
  const lib = await x509();
  try {
    const request = new lib.Pkcs10CertificateRequest(pem);
    const proved = await request.verify();
    const publicKey = Uint8Array.from(new Uint8Array(request.publicKey.rawData));
    // Also says whether it is a key on the curve that the cluster's keys are on.
    const key = createPublicKey({ key: Buffer.from(publicKey), format: "der", type: "spki" });
    const own = key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve === "prime256v1";
    if (proved && own) return publicKey;
  } catch {
    throw refused("cannot be read");
  }
  throw refused("is not signed with the P-256 key that it names");
}

/** 127 random bits, not 0: a positive number of at most 20 bytes (RFC 5280, 4.1.2.2). */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString("hex");
}
