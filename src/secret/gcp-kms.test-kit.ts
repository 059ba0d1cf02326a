import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import type { CloudRequest } from "../credential/cloud.test-kit.ts";
import { crc32c } from "./crc32c.ts";

interface Version {
  readonly key: Uint8Array;
  state: "ENABLED" | "DISABLED" | "DESTROYED";
}

/**
 * Google's Cloud KMS as far as symmetric keys go: it encrypts for real, binds what it is given as additional data, checks
 * tokens and checksums, and answers as the REST API does. A ciphertext names its version, as Google's does within.
 */
export class FakeGcpKms {
  /** By name; the last version of each is its primary one. */
  readonly keys = new Map<string, Version[]>();
  /** Whose token it is that may use the keys. */
  mayUse: (token: string) => boolean | undefined = () => true;
  /** How many more messages arrive with a bit turned over: at the server, at the client. */
  damage = { requests: 0, answers: 0 };
  /** In place of an answer. */
  instead: (() => Response) | undefined;
  asked = 0;

  addKey(name: string): void {
    this.keys.set(name, [...(this.keys.get(name) ?? []), { key: randomBytes(32), state: "ENABLED" }]);
  }

  readonly answer = (request: CloudRequest): Response => {
    this.asked += 1;
    if (this.instead !== undefined) return this.instead();
    const allowed = this.mayUse((request.headers.get("authorization") ?? "").replace(/^Bearer /, ""));
    if (allowed === undefined) return refuse(401, "UNAUTHENTICATED", "invalid authentication credentials");
    const [, name = "", verb = ""] = /^\/v1\/(.+):(encrypt|decrypt)$/.exec(request.path) ?? [];
    const versions = this.keys.get(name);
    if (versions === undefined) return refuse(404, "NOT_FOUND", `CryptoKey ${name} not found.`);
    if (!allowed) return refuse(403, "PERMISSION_DENIED", `Permission denied on ${name}`);
    const body = JSON.parse(request.body) as Record<string, string>;
    for (const field of ["plaintext", "ciphertext", "additionalAuthenticatedData"]) {
      const bytes = Buffer.from(body[field] ?? "", "base64");
      if (this.damage.requests > 0 && bytes.length > 0) {
        this.damage.requests -= 1;
        bytes[0] = (bytes[0] ?? 0) ^ 1;
      }
      const sum = body[`${field}Crc32c`];
      if (sum !== undefined && sum !== String(crc32c(bytes))) {
        const text = `The checksum in field ${field}_crc32c did not match the data in field ${field}.`;
        return refuse(400, "INVALID_ARGUMENT", text);
      }
    }
    const aad = Buffer.from(body["additionalAuthenticatedData"] ?? "", "base64");
    if (verb === "encrypt")
      return this.#encrypt(name, versions, Buffer.from(body["plaintext"] ?? "", "base64"), aad, body);
    return this.#decrypt(versions, Buffer.from(body["ciphertext"] ?? "", "base64"), aad);
  };

  #encrypt(
    name: string,
    versions: readonly Version[],
    plaintext: Buffer,
    aad: Buffer,
    body: Record<string, string>,
  ): Response {
    const number = versions.length;
    const version = versions.at(-1) as Version;
    if (version.state !== "ENABLED") return this.#unusable(`${name}/cryptoKeyVersions/${number}`, version);
    const nonce = randomBytes(12);
    const cipher = createCipheriv("aes-256-gcm", version.key, nonce, { authTagLength: 16 });
    cipher.setAAD(aad);
    const sealed = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
    const ciphertext = Buffer.concat([Buffer.from([number]), nonce, sealed]);
    return Response.json({
      name: `${name}/cryptoKeyVersions/${number}`,
      ciphertext: this.#sent(ciphertext),
      ciphertextCrc32c: String(crc32c(ciphertext)),
      ...(body["plaintextCrc32c"] === undefined ? {} : { verifiedPlaintextCrc32c: true }),
      ...(body["additionalAuthenticatedDataCrc32c"] === undefined
        ? {}
        : { verifiedAdditionalAuthenticatedDataCrc32c: true }),
      protectionLevel: "SOFTWARE",
    });
  }

  #decrypt(versions: readonly Version[], ciphertext: Buffer, aad: Buffer): Response {
    const no = () =>
      refuse(
        400,
        "INVALID_ARGUMENT",
        "Decryption failed: verify that 'name' refers to the correct CryptoKey.",
      );
    const version = versions[(ciphertext[0] ?? 0) - 1];
    if (version === undefined || ciphertext.length < 29) return no();
    if (version.state !== "ENABLED") return this.#unusable(`version ${ciphertext[0]}`, version);
    try {
      const nonce = ciphertext.subarray(1, 13);
      const decipher = createDecipheriv("aes-256-gcm", version.key, nonce, { authTagLength: 16 });
      decipher.setAAD(aad);
      decipher.setAuthTag(ciphertext.subarray(-16));
      const plaintext = Buffer.concat([decipher.update(ciphertext.subarray(13, -16)), decipher.final()]);
      return Response.json({
        plaintext: this.#sent(plaintext),
        plaintextCrc32c: String(crc32c(plaintext)),
        usedPrimary: version === versions.at(-1),
        protectionLevel: "SOFTWARE",
      });
    } catch {
      return no();
    }
  }

  #unusable(name: string, { state }: Version): Response {
    return refuse(400, "FAILED_PRECONDITION", `${name} is not enabled, current state is: ${state}.`);
  }

  #sent(bytes: Buffer): string {
    const copy = Buffer.from(bytes);
    if (this.damage.answers > 0) {
      this.damage.answers -= 1;
      copy[0] = (copy[0] ?? 0) ^ 1;
    }
    return copy.toString("base64");
  }
}

function refuse(code: number, status: string, message: string): Response {
  return Response.json({ error: { code, message, status } }, { status: code });
}
