import { CredentialError } from "../credential/error.ts";
import type { Identity, IssuerFetch } from "../credential/issuer.ts";
import { askForJson, type IssuerAnswer, wordOf } from "../credential/issuer-answer.ts";
import { crc32c } from "./crc32c.ts";
import { keyBytes } from "./envelope.ts";
import { SecretError } from "./error.ts";
import type { KeyEncryptionKey } from "./kek.ts";
import { KeptKeys } from "./key-kept.ts";

export interface GcpKmsSettings {
  /** `projects/P/locations/L/keyRings/R/cryptoKeys/K` of a symmetric key. */
  readonly name: string;
  /** Who asks; an identity of Google. */
  readonly identity: Identity;
  readonly send: IssuerFetch;
  readonly now?: (() => number) | undefined;
}

const origin = "https://cloudkms.googleapis.com/v1/";
/** A checksum that differs was damaged on the way: Google asks to try again, a limited number of times. */
const attemptsMax = 3;

/**
 * A key of Google's Cloud KMS, by `encrypt` and `decrypt` of its REST API, with the associated data as
 * `additionalAuthenticatedData`. CRC32C is sent with all that goes out and checked on all that comes in.
 *
 * Source: Cloud KMS, "REST Resource: cryptoKeys" and "Data integrity guidelines".
 */
export class GcpKmsKey implements KeyEncryptionKey {
  readonly id: string;
  readonly kind = "gcp-kms";
  readonly #settings: GcpKmsSettings;
  readonly #kept: KeptKeys;

  constructor(settings: GcpKmsSettings) {
    this.#settings = settings;
    this.id = `gcp-kms:${settings.name}`;
    this.#kept = new KeptKeys(settings.now);
  }

  async wrap(key: Uint8Array, aad: Uint8Array): Promise<Uint8Array> {
    return await this.#repeat(async () => {
      const answer = await this.#ask("encrypt", {
        plaintext: base64(key),
        plaintextCrc32c: String(crc32c(key)),
        additionalAuthenticatedData: base64(aad),
        additionalAuthenticatedDataCrc32c: String(crc32c(aad)),
      });
      if (answer === undefined) return undefined;
      const ciphertext = bytesOf(answer["ciphertext"]);
      const sound =
        answer["verifiedPlaintextCrc32c"] === true &&
        answer["verifiedAdditionalAuthenticatedDataCrc32c"] === true &&
        isSum(answer["ciphertextCrc32c"], ciphertext) &&
        String(answer["name"]).startsWith(`${this.#settings.name}/cryptoKeyVersions/`);
      return sound ? ciphertext : undefined;
    });
  }

  async unwrap(wrapped: Uint8Array, aad: Uint8Array): Promise<Uint8Array> {
    return await this.#kept.get(wrapped, aad, () =>
      this.#repeat(async () => {
        const answer = await this.#ask("decrypt", {
          ciphertext: base64(wrapped),
          ciphertextCrc32c: String(crc32c(wrapped)),
          additionalAuthenticatedData: base64(aad),
          additionalAuthenticatedDataCrc32c: String(crc32c(aad)),
        });
        if (answer === undefined) return undefined;
        const plaintext = bytesOf(answer["plaintext"]);
        return plaintext.length === keyBytes && isSum(answer["plaintextCrc32c"], plaintext)
          ? plaintext
          : undefined;
      }),
    );
  }

  forget(wrapped: Uint8Array): void {
    this.#kept.forget(wrapped);
  }

  async #repeat(attempt: () => Promise<Uint8Array | undefined>): Promise<Uint8Array> {
    for (let count = 0; count < attemptsMax; count += 1) {
      const sound = await attempt();
      if (sound !== undefined) return sound;
    }
    throw new SecretError("key_unreachable", `what Cloud KMS says for the key ${this.id} arrives damaged`, {
      next: "Check what is between this host and cloudkms.googleapis.com, then try again.",
    });
  }

  /** Undefined: what was sent arrived damaged. */
  async #ask(
    verb: "encrypt" | "decrypt",
    json: object,
  ): Promise<Readonly<Record<string, unknown>> | undefined> {
    const { identity, name, send, now = Date.now } = this.#settings;
    try {
      const token = await identity.googleToken?.();
      if (token === undefined) throw new TypeError(`the identity ${identity.name} is none of Google`);
      const answer = await askForJson(
        { send, now },
        {
          who: "Cloud KMS",
          url: `${origin}${name.split("/").map(encodeURIComponent).join("/")}:${verb}`,
          headers: { Authorization: `Bearer ${token.expose()}` },
          json,
        },
      );
      if (answer.status === 200 && answer.json !== undefined) return answer.json;
      if (isChecksumProblem(answer)) return undefined;
      throw this.#refusal(verb, answer);
    } catch (error) {
      if (!(error instanceof CredentialError)) throw error;
      const code = error.code === "provider_unreachable" ? "key_unreachable" : "key_refused";
      throw new SecretError(code, `the key ${this.id} cannot be used: ${error.message}`, {
        next: error.next,
      });
    }
  }

  /** Google's sentences are not repeated: they may quote what was sent. */
  #refusal(verb: string, { status, json }: IssuerAnswer): SecretError {
    const error = json?.["error"] as { status?: unknown } | undefined;
    const word = wordOf(error?.status) ?? String(status);
    if (verb === "decrypt" && status === 400 && word === "INVALID_ARGUMENT") {
      return new SecretError("undecryptable", "a wrapped key cannot be opened with this key at this place");
    }
    const [what, next] = refusals[status] ?? [
      "cannot be used",
      "Check what answers as cloudkms.googleapis.com, then try again.",
    ];
    return new SecretError("key_refused", `the key ${this.id} ${what} (${word})`, { next });
  }
}

const refusals: Readonly<Record<number, readonly [what: string, next: string]>> = {
  400: [
    "is not usable: its version may be disabled or waiting for its destruction",
    "Enable or restore the version in Cloud KMS while that is possible: without it nothing that is under it opens again.",
  ],
  401: [
    "is closed to us: Google does not take the token",
    "Check the identity with `oci-node doctor --config FILE`.",
  ],
  403: [
    "is closed to the identity",
    "Grant roles/cloudkms.cryptoKeyEncrypterDecrypter on the key to its service account, and see that the Cloud KMS API is enabled.",
  ],
  404: [
    "does not exist",
    "Check the name in [keys]; a key whose versions were destroyed is gone, and with it what was under it.",
  ],
};

/** By its text alone can it be told from a ciphertext that does not open. */
function isChecksumProblem({ status, json }: IssuerAnswer): boolean {
  const error = json?.["error"] as { message?: unknown } | undefined;
  return status === 400 && /crc32c/.test(String(error?.message));
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

function bytesOf(value: unknown): Uint8Array {
  return new Uint8Array(Buffer.from(typeof value === "string" ? value : "", "base64"));
}

/** `google.protobuf.Int64Value` is text in JSON. */
function isSum(value: unknown, bytes: Uint8Array): boolean {
  return bytes.length > 0 && String(value) === String(crc32c(bytes));
}
