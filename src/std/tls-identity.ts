import { inspect } from "node:util";

/**
 * A certificate with its private key, and the authorities whose certificates count at the other end. All PEM. However it
 * is turned into text, the key is not in it.
 */
export class TlsIdentity {
  readonly certificate: string;
  readonly authorities: string;
  readonly #privateKey: string;

  constructor(parts: {
    readonly certificate: string;
    readonly privateKey: string;
    readonly authorities: string;
  }) {
    this.certificate = parts.certificate;
    this.authorities = parts.authorities;
    this.#privateKey = parts.privateKey;
  }

  /** As `node:tls` wants them. Pass it on at once; keep it nowhere. */
  secureContext(): { cert: string; key: string; ca: string } {
    return { cert: this.certificate, key: this.#privateKey, ca: this.authorities };
  }

  [inspect.custom](): string {
    return "[TLS identity]";
  }
}
