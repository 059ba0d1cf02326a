import { callLimit, clientSettings } from "../credential/aws-client.ts";
import { awsProblem, keysOfIdentity } from "../credential/aws-error.ts";
import { partitionOf } from "../credential/ecr-host.ts";
import { CredentialError } from "../credential/error.ts";
import type { Identity, IssuerFetch } from "../credential/issuer.ts";
import { keyBytes } from "./envelope.ts";
import { SecretError } from "./error.ts";
import type { KeyEncryptionKey } from "./kek.ts";
import { KeptKeys } from "./key-kept.ts";

export interface AwsKmsSettings {
  /** `arn:aws:kms:REGION:ACCOUNT:key/ID` of a symmetric key. */
  readonly arn: string;
  /** Who asks; an identity of AWS. */
  readonly identity: Identity;
  readonly send: IssuerFetch;
  readonly now?: (() => number) | undefined;
}

const domains = {
  aws: "amazonaws.com",
  "aws-us-gov": "amazonaws.com",
  "aws-cn": "amazonaws.com.cn",
  "aws-eusc": "amazonaws.eu",
} as const;

/** What the key's state is, by the names of KMS's errors (AWS KMS API Reference, "Encrypt" and "Decrypt"). */
const states: Readonly<Record<string, readonly [what: string, next: string]>> = {
  DisabledException: ["is disabled", "Enable it in KMS: until then nothing that is under it opens."],
  KMSInvalidStateException: [
    "is not usable in its state: it may be waiting for its deletion",
    "Cancel the deletion in KMS while that is possible: without the key nothing that is under it opens again.",
  ],
  NotFoundException: [
    "does not exist",
    "Check the ARN in [keys]; a key that was deleted is gone, and with it what was under it.",
  ],
  InvalidKeyUsageException: ["is not for encryption", "Name a symmetric key with the usage ENCRYPT_DECRYPT."],
};
const wrongCiphertext = new Set(["InvalidCiphertextException", "IncorrectKeyException"]);
/** What `Decrypt` takes. */
const ciphertextBytesMax = 6144;
const busy = new Set(["KeyUnavailableException", "DependencyTimeoutException", "KMSInternalException"]);

/**
 * A key of AWS KMS. Only `Encrypt` and `Decrypt` are called, with the associated data as the encryption context, which
 * KMS authenticates and CloudTrail shows (it names places, never values). The key itself never leaves KMS.
 *
 * Source: AWS KMS API Reference; AWS KMS Developer Guide, "Encryption context".
 */
export class AwsKmsKey implements KeyEncryptionKey {
  readonly id: string;
  readonly kind = "aws-kms";
  readonly #settings: AwsKmsSettings;
  readonly #region: string;
  readonly #kept: KeptKeys;

  constructor(settings: AwsKmsSettings) {
    this.#settings = settings;
    this.id = `aws-kms:${settings.arn}`;
    this.#region = settings.arn.split(":")[3] ?? "";
    this.#kept = new KeptKeys(settings.now);
  }

  async wrap(key: Uint8Array, aad: Uint8Array): Promise<Uint8Array> {
    const { EncryptCommand, KMSClient } = await import("@aws-sdk/client-kms");
    const { CiphertextBlob } = await this.#ask(async (settings) => {
      const client = new KMSClient(settings);
      const input = { KeyId: this.#settings.arn, Plaintext: key, EncryptionContext: contextOf(aad) };
      return await client.send(new EncryptCommand(input), callLimit()).finally(() => client.destroy());
    });
    if (CiphertextBlob === undefined) throw this.#strange();
    return CiphertextBlob;
  }

  async unwrap(wrapped: Uint8Array, aad: Uint8Array): Promise<Uint8Array> {
    if (wrapped.length === 0 || wrapped.length > ciphertextBytesMax) throw undecryptable();
    return await this.#kept.get(wrapped, aad, async () => {
      const { DecryptCommand, KMSClient } = await import("@aws-sdk/client-kms");
      const { Plaintext, KeyId } = await this.#ask(async (settings) => {
        const client = new KMSClient(settings);
        const input = {
          KeyId: this.#settings.arn,
          CiphertextBlob: wrapped,
          EncryptionContext: contextOf(aad),
        };
        return await client.send(new DecryptCommand(input), callLimit()).finally(() => client.destroy());
      });
      if (KeyId !== this.#settings.arn) throw undecryptable();
      if (Plaintext?.length !== keyBytes) throw this.#strange();
      return Plaintext;
    });
  }

  forget(wrapped: Uint8Array): void {
    this.#kept.forget(wrapped);
  }

  async #ask<T>(call: (settings: ReturnType<typeof clientSettings>) => Promise<T>): Promise<T> {
    const { identity, send } = this.#settings;
    const region = this.#region;
    const domain = domains[partitionOf(region)];
    const endpoint = `https://kms.${region}.${domain}`;
    try {
      const keys = await identity.awsKeys?.(undefined, {
        region,
        stsEndpoint: `https://sts.${region}.${domain}`,
      });
      if (keys === undefined) throw new TypeError(`the identity ${identity.name} is none of AWS`);
      return await call(clientSettings({ region, endpoint, keys, send }));
    } catch (error) {
      throw await this.#problem(error, new URL(endpoint).host);
    }
  }

  async #problem(error: unknown, host: string): Promise<Error> {
    if (error instanceof TypeError) return error;
    const name = error instanceof Error ? error.name : "";
    if (wrongCiphertext.has(name)) return undecryptable();
    const state = states[name];
    if (state !== undefined) {
      return new SecretError("key_refused", `the key ${this.id} ${state[0]} (${name})`, { next: state[1] });
    }
    if (busy.has(name)) {
      return new SecretError("key_unreachable", `AWS KMS cannot use the key ${this.id} now (${name})`, {
        next: "Try again in some minutes.",
      });
    }
    const who = keysOfIdentity(this.#settings.identity.name);
    const told = await awsProblem(error, {
      host,
      wanted: `use of the key ${this.id}`,
      ...who,
      denied: (code) =>
        new CredentialError(
          "provider_failed",
          `AWS does not allow ${who.keys} to use the key ${this.id} (${code})`,
          {
            next: "Allow kms:Encrypt and kms:Decrypt on the key to the identity's role, in its policy or the key's.",
          },
        ),
    });
    const code = told.code === "provider_unreachable" ? "key_unreachable" : "key_refused";
    return new SecretError(code, told.message, { next: told.next });
  }

  #strange(): SecretError {
    return new SecretError(
      "key_refused",
      `what answers as AWS KMS for the key ${this.id} is something else`,
      {
        next: "Check what answers in its place, then try again.",
      },
    );
  }
}

function undecryptable(): SecretError {
  return new SecretError("undecryptable", "a wrapped key cannot be opened with this key at this place");
}

function contextOf(aad: Uint8Array): Record<string, string> {
  return { "oci-node": Buffer.from(aad).toString("base64") };
}
