import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Moto } from "../../test/kit/moto.ts";
import { checkSignature } from "../credential/aws-signature.test-kit.ts";
import { FakeGoogle, machineAccount } from "../credential/google.test-kit.ts";
import { googleIdentity } from "../credential/google-identity.ts";
import type { Identity, IssuerFetch } from "../credential/issuer.ts";
import { Redacted } from "../std/redacted.ts";
import { crc32c } from "./crc32c.ts";
import { boundTo } from "./envelope.ts";
import type { SecretError, SecretErrorCode } from "./error.ts";
import { FakeGcpKms } from "./gcp-kms.test-kit.ts";
import type { KeyEncryptionKey } from "./kek.ts";
import { AwsKmsKey } from "./key-aws-kms.ts";
import { GcpKmsKey } from "./key-gcp-kms.ts";

const key = new Uint8Array(32).fill(5);
const place = boundTo("oci-node", "v1", "workspace key", "w1");

let nowMs = Date.now();
const now = () => nowMs;
/** Longer than what was unwrapped serves without asking. */
const fiveMinutes = 5 * 60_000 + 1;

async function refused(code: SecretErrorCode, work: Promise<unknown>): Promise<SecretError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown as SecretError,
  );
  expect(`${error?.code}: ${error?.message}`).toStartWith(`${code}: `);
  expect(code === "undecryptable" || error?.next !== undefined).toBe(true);
  return error as SecretError;
}

/** What both services must do alike. `away` takes the service off the network, until `back`. */
function behaves(
  make: () => {
    readonly key: () => KeyEncryptionKey;
    readonly another: KeyEncryptionKey;
    readonly asked: () => number;
    readonly away: () => void;
    readonly back: () => void;
    readonly deny: () => void;
  },
): void {
  test("gives back what it wrapped, at its place only", async () => {
    const one = make().key();
    const wrapped = await one.wrap(key, place);
    expect(Buffer.from(wrapped).includes(Buffer.from(key))).toBe(false);
    expect(await one.unwrap(wrapped, place)).toEqual(key);
    // Also with the right one in memory.
    for (const aad of [boundTo("oci-node", "v1", "workspace key", "w2"), new Uint8Array(0)]) {
      await refused("undecryptable", one.unwrap(wrapped, aad));
    }
  });

  test("opens nothing whose bytes changed, were cut off, or are another key's", async () => {
    const { key: one, another } = make();
    const wrapped = await one().wrap(key, place);
    await one().unwrap(wrapped, place);
    const known = one();
    for (let index = 0; index < wrapped.length; index += 1) {
      const changed = Uint8Array.from(wrapped);
      changed[index] = (changed[index] ?? 0) ^ 1;
      await neverOpens(known.unwrap(changed, place));
    }
    for (const length of [0, 1, 12, wrapped.length - 16, wrapped.length - 1]) {
      await neverOpens(known.unwrap(wrapped.subarray(0, length), place));
    }
    await neverOpens(known.unwrap(await another.wrap(key, place), place));
    await neverOpens(another.unwrap(wrapped, place));
  });

  test("is asked once for what is wanted often, and again after five minutes", async () => {
    const { key: one, asked } = make();
    const here = one();
    const wrapped = await here.wrap(key, place);
    const before = asked();
    await Promise.all(Array.from({ length: 20 }, () => here.unwrap(wrapped, place)));
    // Whoever wipes his copy wipes no other's.
    (await here.unwrap(wrapped, place)).fill(0);
    expect(await here.unwrap(wrapped, place)).toEqual(key);
    expect(asked() - before).toBe(1);
    nowMs += fiveMinutes;
    await here.unwrap(wrapped, place);
    expect(asked() - before).toBe(2);
    here.forget?.(wrapped);
    await here.unwrap(wrapped, place);
    expect(asked() - before).toBe(3);
  });

  test("may be away for half an hour, for what was opened before, and for nothing else", async () => {
    const { key: one, away, back } = make();
    const here = one();
    const [wrapped, other] = [await here.wrap(key, place), await here.wrap(key, place)];
    await here.unwrap(wrapped, place);
    away();
    nowMs += 29 * 60_000;
    expect(await here.unwrap(wrapped, place)).toEqual(key);
    await refused("key_unreachable", here.unwrap(other, place));
    nowMs += 60_000;
    await refused("key_unreachable", here.unwrap(wrapped, place));
    back();
    expect(await here.unwrap(wrapped, place)).toEqual(key);
  });

  test("that refuses is believed, and what was opened before is forgotten", async () => {
    const { key: one, away, deny } = make();
    const here = one();
    const wrapped = await here.wrap(key, place);
    await here.unwrap(wrapped, place);
    nowMs += fiveMinutes;
    deny();
    await refused("key_refused", here.unwrap(wrapped, place));
    away();
    await refused("key_unreachable", here.unwrap(wrapped, place));
  });
}

/** Whatever it says, it is no plaintext. */
async function neverOpens(work: Promise<Uint8Array>): Promise<void> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown as SecretError,
  );
  expect(["undecryptable", "key_refused"]).toContain(error?.code ?? "opened");
}

describe("a key of AWS KMS", () => {
  let moto: Moto;
  const region = "eu-west-1";
  const keys = {
    accessKeyId: "ASIATEST",
    secretAccessKey: new Redacted("planted-secret"),
    sessionToken: new Redacted("planted-session"),
  };
  const identity: Identity = {
    name: "prod",
    provider: () => {
      throw new Error("no registry is asked for here");
    },
    awsKeys: async () => keys,
  };
  let isAway = false;
  let arns: string[] = [];
  beforeAll(async () => {
    moto = await Moto.start();
  }, 90_000);
  afterAll(() => moto.stop());
  beforeEach(async () => {
    isAway = false;
    moto.answer = undefined;
    arns = await Promise.all([createKey(), createKey()]);
  });

  async function createKey(): Promise<string> {
    const credential = `Credential=x/20260101/${region}/kms/aws4_request, SignedHeaders=host, Signature=0`;
    const answer = await fetch(`http://${moto.server}/`, {
      method: "POST",
      headers: {
        "x-amz-target": "TrentService.CreateKey",
        "content-type": "application/x-amz-json-1.1",
        authorization: `AWS4-HMAC-SHA256 ${credential}`,
      },
      body: "{}",
    });
    return ((await answer.json()) as { KeyMetadata: { Arn: string } }).KeyMetadata.Arn;
  }

  /** Signatures are checked here, as moto takes any. */
  const send: IssuerFetch = async (url, init) => {
    if (isAway) throw Object.assign(new Error("planted-url"), { code: "ECONNREFUSED" });
    const target = new URL(url);
    expect(target.origin).toBe(`https://kms.${region}.amazonaws.com`);
    const headers = new Headers(init.headers);
    headers.set("host", target.host);
    const body = Buffer.from((init.body ?? "") as string);
    headers.set("content-length", String(body.length));
    const secret = { secret: "planted-secret", sessionToken: "planted-session" };
    const request = { method: init.method ?? "GET", url: target, headers, body };
    const verdict = checkSignature(request, { region, service: "kms" }, () => secret, Date.now());
    expect(verdict).toEqual({ ok: true, accessKeyId: "ASIATEST" });
    return await fetch(`http://${moto.host}${target.pathname}`, init);
  };
  const make = (index = 0) => new AwsKmsKey({ arn: arns[index] as string, identity, send, now });
  const fail = (name: string, status = 400) => {
    moto.answer = () => Response.json({ __type: name, message: "planted-message" }, { status });
  };

  behaves(() => ({
    key: make,
    another: make(1),
    asked: () => moto.actions.length,
    away: () => {
      isAway = true;
    },
    back: () => {
      isAway = false;
    },
    deny: () => fail("AccessDeniedException"),
  }));

  test("binds a wrapped key to its place by the encryption context", async () => {
    const bodies: Record<string, unknown>[] = [];
    const one = new AwsKmsKey({
      arn: arns[0] as string,
      identity,
      now,
      send: (url, init) => {
        bodies.push(JSON.parse(Buffer.from(init.body as Uint8Array).toString()));
        return send(url, init);
      },
    });
    await one.unwrap(await one.wrap(key, place), place);
    const context = { "oci-node": Buffer.from(place).toString("base64") };
    expect(bodies).toMatchObject([
      { KeyId: arns[0], EncryptionContext: context },
      { KeyId: arns[0], EncryptionContext: context },
    ]);
  });

  test.each([
    ["AccessDeniedException", "key_refused", "does not allow the keys of identity prod", "kms:Decrypt"],
    ["DisabledException", "key_refused", "is disabled", "Enable it"],
    ["KMSInvalidStateException", "key_refused", "waiting for its deletion", "Cancel the deletion"],
    ["NotFoundException", "key_refused", "does not exist", "ARN"],
    ["InvalidKeyUsageException", "key_refused", "not for encryption", "ENCRYPT_DECRYPT"],
    ["ThrottlingException", "key_unreachable", "throttles", "some minutes"],
    ["KeyUnavailableException", "key_unreachable", "cannot use the key", "some minutes"],
    ["DependencyTimeoutException", "key_unreachable", "cannot use the key", "some minutes"],
    ["ExpiredTokenException", "key_refused", "have expired", "operator"],
    ["UnrecognizedClientException", "key_refused", "does not know", "operator"],
  ] as const)("tells %s as %s", async (name, code, message, next) => {
    const one = make();
    fail(name);
    const error = await refused(code, one.wrap(key, place));
    expect(error.message).toContain(message);
    expect(error.message).toContain(name);
    expect(error.next).toContain(next);
    expect(error.message + error.next).not.toContain("planted");
  });

  test("says that KMS cannot be reached, without what was sent there", async () => {
    isAway = true;
    const error = await refused("key_unreachable", make().wrap(key, place));
    expect(error.message).toContain("kms.eu-west-1.amazonaws.com did not answer");
    expect(error.message + error.next).not.toContain("planted");
  });
});

describe("a key of Google's Cloud KMS", () => {
  let google: FakeGoogle;
  let kms: FakeGcpKms;
  let isAway = false;
  const nameOf = (index: number) => `projects/acme/locations/global/keyRings/oci/cryptoKeys/kek-${index}`;
  beforeEach(() => {
    isAway = false;
    google = new FakeGoogle();
    kms = new FakeGcpKms();
    kms.mayUse = (token) => {
      const who = google.whoIs(token);
      return who === undefined ? undefined : who === machineAccount;
    };
    google.cloud.hosts.set("https://cloudkms.googleapis.com", kms.answer);
    kms.addKey(nameOf(0));
    kms.addKey(nameOf(1));
  });
  afterEach(() => google.cloud[Symbol.asyncDispose]());

  const make = (index = 0) => {
    const send: IssuerFetch = async (url, init) => {
      if (isAway) throw Object.assign(new Error("planted-url"), { code: "ECONNREFUSED" });
      return await google.cloud.fetch(url, init);
    };
    const identity = googleIdentity(
      "prod",
      { source: "metadata" },
      { fetch: send, metadataFetch: google.cloud.fetch, now: google.now },
    );
    return new GcpKmsKey({ name: nameOf(index), identity, send, now });
  };

  behaves(() => ({
    key: make,
    another: make(1),
    asked: () => kms.asked,
    away: () => {
      isAway = true;
    },
    back: () => {
      isAway = false;
    },
    deny: () => {
      kms.mayUse = () => false;
    },
  }));

  test("what an older version wrapped opens after the key was rotated in Cloud KMS", async () => {
    const one = make();
    const wrapped = await one.wrap(key, place);
    kms.addKey(nameOf(0));
    expect(await make().unwrap(wrapped, place)).toEqual(key);
    expect((await one.wrap(key, place))[0]).toBe(2);
  });

  test("what arrives damaged, there or here, is asked for again, three times at most", async () => {
    const one = make();
    for (const which of ["requests", "answers"] as const) {
      kms.damage[which] = 2;
      const wrapped = await one.wrap(key, place);
      kms.damage[which] = 2;
      expect(await one.unwrap(wrapped, place)).toEqual(key);
      kms.damage[which] = 3;
      const error = await refused("key_unreachable", one.wrap(key, place));
      expect(error.message).toContain("arrives damaged");
      kms.damage[which] = 0;
    }
  });

  test("an answer that does not say that the checksums were verified is not believed", async () => {
    const one = make();
    const ciphertext = Buffer.from(await one.wrap(key, place));
    const answer = {
      name: `${nameOf(0)}/cryptoKeyVersions/1`,
      ciphertext: ciphertext.toString("base64"),
      ciphertextCrc32c: String(crc32c(ciphertext)),
      verifiedPlaintextCrc32c: true,
      verifiedAdditionalAuthenticatedDataCrc32c: true,
    };
    kms.instead = () => Response.json(answer);
    expect(Buffer.from(await one.wrap(key, place))).toEqual(ciphertext);
    for (const change of [
      { verifiedPlaintextCrc32c: false },
      { verifiedAdditionalAuthenticatedDataCrc32c: undefined },
      { ciphertextCrc32c: undefined },
      { ciphertext: "" },
      { name: `${nameOf(1)}/cryptoKeyVersions/1` },
    ]) {
      kms.instead = () => Response.json({ ...answer, ...change });
      await refused("key_unreachable", one.wrap(key, place));
    }
    for (const plaintext of [key.subarray(1), new Uint8Array(0)]) {
      kms.instead = () =>
        Response.json({
          plaintext: Buffer.from(plaintext).toString("base64"),
          plaintextCrc32c: String(crc32c(plaintext)),
        });
      await refused("key_unreachable", one.unwrap(ciphertext, place));
    }
  });

  test("a version that is disabled or destroyed, a key that is none, a token that is none: each is told", async () => {
    const one = make();
    const wrapped = await one.wrap(key, place);
    for (const state of ["DISABLED", "DESTROYED"] as const) {
      for (const version of kms.keys.get(nameOf(0)) ?? []) version.state = state;
      const error = await refused("key_refused", one.unwrap(wrapped, place));
      expect(error.message).toContain("(FAILED_PRECONDITION)");
      expect(error.next).toContain("Enable or restore");
    }
    const denied = make(1);
    kms.mayUse = () => false;
    const error = await refused("key_refused", denied.wrap(key, place));
    expect(error.next).toContain("roles/cloudkms.cryptoKeyEncrypterDecrypter");
    kms.mayUse = () => undefined;
    expect((await refused("key_refused", denied.wrap(key, place))).message).toContain("(UNAUTHENTICATED)");
    kms.mayUse = () => true;
    expect((await refused("key_refused", make(7).wrap(key, place))).message).toContain("does not exist");
    google.machineHasAccount = false;
    expect((await refused("key_refused", make().wrap(key, place))).message).toContain("no service account");
  });
});

test("CRC-32C is that of RFC 3720", () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, index) => index);
  const vectors = [
    [new Uint8Array(32), 0x8a9136aa],
    [new Uint8Array(32).fill(0xff), 0x62a8ab43],
    [ascending, 0x46dd794e],
    [ascending.toReversed(), 0x113fdb5c],
    [new TextEncoder().encode("123456789"), 0xe3069283],
  ] as const;
  for (const [bytes, sum] of vectors) expect(crc32c(bytes)).toBe(sum);
});
