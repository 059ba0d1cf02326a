import { AEAD_AES_256_GCM, CipherSuite, KDF_HKDF_SHA256, KEM_DHKEM_X25519_HKDF_SHA256 } from "hpke";
import { Redacted } from "../std/redacted.ts";
import { boundTo } from "./envelope.ts";
import { SecretError } from "./error.ts";

/** What a sealed value is bound to: it opens for this request, on this boot of this worker, until then. */
export interface SealContext {
  readonly requestId: string;
  readonly containerId: string;
  readonly workerId: string;
  readonly bootNonce: string;
  readonly expiresAt: Date;
}

/** HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. */
const suite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_256_GCM);

/** What is sealed: what was sealed as one of them opens as no other. */
export type SealedKind = "image credentials" | "container secrets";

const version = 1;
const encapsulatedBytes = 32;
const sealedCharactersMax: Readonly<Record<SealedKind, number>> = {
  "image credentials": 256 * 1024,
  "container secrets": 3 * 1024 * 1024,
};
/** What was opened is remembered until it expires: both bound that memory. */
const openedMax = 65_536;
const lifeMsMax = 3_600_000;

/**
 * Seals a value to a worker's boot key: base64 of a version byte, the encapsulated key (32 bytes) and the ciphertext.
 * Throws SecretError `bad_value` when the key is none.
 */
export async function sealTo(
  publicKey: Uint8Array,
  plaintext: Redacted<string>,
  context: SealContext,
  kind: SealedKind = "image credentials",
): Promise<string> {
  const recipient = await suite.DeserializePublicKey(publicKey).catch(() => {
    throw new SecretError("bad_value", `worker ${context.workerId}: its boot key is not an X25519 key`);
  });
  const bytes = new TextEncoder().encode(plaintext.expose());
  const { encapsulatedSecret, ciphertext } = await suite.Seal(recipient, bytes, {
    info: infoOf(kind),
    aad: bindings(context),
  });
  bytes.fill(0);
  return Buffer.concat([Uint8Array.of(version), encapsulatedSecret, ciphertext]).toString("base64");
}

/** Makes the key pair of a worker's boot. */
export async function generateBootKey(): Promise<BootKey> {
  const pair = await suite.GenerateKeyPair();
  return new BootKey(await suite.SerializePublicKey(pair.publicKey), pair);
}

type KeyPair = Awaited<ReturnType<typeof suite.GenerateKeyPair>>;

/** A worker's key of one boot; the private half never leaves the process's memory. */
export class BootKey {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly #pair: KeyPair;
  /** Requests that were opened, by kind → when they expire (ms): after that, expiry alone refuses them. */
  readonly #opened = new Map<string, number>();

  constructor(publicKey: Uint8Array, pair: KeyPair) {
    this.publicKey = publicKey;
    this.#pair = pair;
  }

  /** Of requests that were opened and have not expired: how many. */
  get openedRequests(): number {
    return this.#opened.size;
  }

  /**
   * Opens what was sealed to this boot, each kind once for each request. Throws SecretError `expired`, `replayed`, or
   * `undecryptable` when anything of the context differs from what it was sealed with.
   */
  async open(
    sealed: string,
    context: SealContext,
    kind: SealedKind = "image credentials",
  ): Promise<Redacted<string>> {
    const what = kind === "image credentials" ? "credentials" : "secrets";
    const opened = kind === "image credentials" ? context.requestId : `${kind} ${context.requestId}`;
    const now = Date.now();
    const expiresAtMs = context.expiresAt.getTime();
    if (!(expiresAtMs > now)) {
      throw new SecretError("expired", `the ${what} of container ${context.containerId} came too late`, {
        next: "Run it again; if that repeats, compare the clocks of scheduler and worker.",
      });
    }
    if (expiresAtMs - now > lifeMsMax) {
      throw new SecretError(
        "expired",
        `the ${what} of container ${context.containerId} would count for too long`,
      );
    }
    for (const [requestId, endMs] of this.#opened) if (endMs <= now) this.#opened.delete(requestId);
    if (this.#opened.has(opened)) {
      throw new SecretError("replayed", `the ${what} of request ${context.requestId} were opened before`);
    }
    if (this.#opened.size >= openedMax) {
      throw new SecretError(
        "replayed",
        `more than ${openedMax} requests at once: repeats could not be told any more`,
      );
    }
    // Marked before the first wait, so that two at once cannot both open it; a failure takes the mark back.
    this.#opened.set(opened, expiresAtMs);
    try {
      return await this.#decrypt(sealed, context, kind);
    } catch {
      this.#opened.delete(opened);
      throw new SecretError(
        "undecryptable",
        `the ${what} of container ${context.containerId} were not sealed for this boot of worker ${context.workerId}`,
        { next: "Run it again: the scheduler seals to the worker's newest key." },
      );
    }
  }

  async #decrypt(sealed: string, context: SealContext, kind: SealedKind): Promise<Redacted<string>> {
    if (sealed.length > sealedCharactersMax[kind]) throw new Error("too long");
    const bytes = Buffer.from(sealed, "base64");
    if (bytes[0] !== version || bytes.length <= 1 + encapsulatedBytes) throw new Error("another format");
    const encapsulated = bytes.subarray(1, 1 + encapsulatedBytes);
    const ciphertext = bytes.subarray(1 + encapsulatedBytes);
    const plaintext = await suite.Open(this.#pair, encapsulated, ciphertext, {
      info: infoOf(kind),
      aad: bindings(context),
    });
    const value = new Redacted(new TextDecoder("utf-8", { fatal: true }).decode(plaintext));
    plaintext.fill(0);
    return value;
  }
}

function infoOf(kind: SealedKind): Uint8Array {
  return new TextEncoder().encode(`oci-node ${kind} v1`);
}

function bindings({ requestId, containerId, workerId, bootNonce, expiresAt }: SealContext): Uint8Array {
  return boundTo(
    "oci-node",
    "v1",
    "sealed",
    requestId,
    containerId,
    workerId,
    bootNonce,
    expiresAt.getTime(),
  );
}
