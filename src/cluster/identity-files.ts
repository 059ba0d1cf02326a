import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { removeTorn, writeFileAtomic } from "../std/atomic-file.ts";
import { errnoOf } from "../std/error.ts";
import { TlsIdentity } from "../std/tls-identity.ts";
import { keyPairOf, requestCertificate } from "./certificate.ts";
import { ClusterError } from "./error.ts";
import { authoritiesIn } from "./join-token.ts";
import { workerIdOfKey } from "./names.ts";

/**
 * Who a worker is, in a folder that only it can read: `key.pem`, made once, which never leaves the host; and `certificate.pem`,
 * the latest certificate with the cluster's authorities after it, in one file, so that they belong to each other.
 */
export class IdentityFiles {
  readonly workerId: string;
  readonly #dir: string;
  readonly #privateKey: string;
  readonly #publicKey: Uint8Array;

  private constructor(dir: string, privateKey: string) {
    this.#dir = dir;
    this.#privateKey = privateKey;
    this.#publicKey = keyPairOf(privateKey).publicKey;
    this.workerId = workerIdOfKey(this.#publicKey);
  }

  /** Throws ClusterError `identity_file` when others can read the key, or it is none. */
  static async open(dir: string): Promise<IdentityFiles> {
    const path = join(dir, "key.pem");
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await removeTorn(path);
    const found = await readStrictly(path);
    if (found !== undefined) return IdentityFiles.#read(dir, path, found);
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const pem = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
    await writeFileAtomic(path, pem, 0o600);
    return new IdentityFiles(dir, pem);
  }

  /** What was saved, when it is for this key and not at its end; undefined: there is none. */
  async saved(): Promise<TlsIdentity | undefined> {
    const pem = await readFile(join(this.#dir, "certificate.pem"), "utf8").catch(() => "");
    const [own, ...authorities] = authoritiesIn(pem);
    if (own === undefined || authorities.length === 0) return undefined;
    const certificate = new X509Certificate(own.certificate);
    const isOwn = certificate.publicKey.export({ type: "spki", format: "der" }).equals(this.#publicKey);
    if (!isOwn || !(Date.parse(certificate.validTo) > Date.now())) return undefined;
    return this.#identity(own.certificate, authorities.map((authority) => authority.certificate).join(""));
  }

  /** Keeps a certificate for the next start. */
  async save(certificate: string, authorities: string): Promise<TlsIdentity> {
    const [own, others] = [`${certificate.trim()}\n`, `${authorities.trim()}\n`];
    await writeFileAtomic(join(this.#dir, "certificate.pem"), `${own}${others}`, 0o600);
    return this.#identity(own, others);
  }

  /** Asks for a certificate for the key (PKCS #10, PEM). */
  async request(): Promise<string> {
    return await requestCertificate(this.#privateKey);
  }

  static #read(dir: string, path: string, pem: string): IdentityFiles {
    try {
      return new IdentityFiles(dir, pem);
    } catch (cause) {
      throw new ClusterError("identity_file", `${path} holds no ECDSA key on P-256`, {
        next: `Remove ${dir}: the worker then joins as a new one, with a join token.`,
        cause,
      });
    }
  }

  #identity(certificate: string, authorities: string): TlsIdentity {
    return new TlsIdentity({ certificate, privateKey: this.#privateKey, authorities });
  }
}

async function readStrictly(path: string): Promise<string | undefined> {
  try {
    const { mode } = await stat(path);
    if ((mode & 0o077) === 0) return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw new ClusterError("identity_file", `${path} cannot be read (${errnoOf(error) ?? "failed"})`);
  }
  throw new ClusterError("identity_file", `others than its owner can read ${path}`, {
    next: `Run: chmod 600 ${path}; if a stranger may have read it, revoke the worker.`,
  });
}
