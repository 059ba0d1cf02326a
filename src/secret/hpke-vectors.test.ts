import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  AEAD_AES_128_GCM,
  AEAD_AES_256_GCM,
  CipherSuite,
  KDF_HKDF_SHA256,
  KEM_DHKEM_X25519_HKDF_SHA256,
} from "hpke";

/**
 * Base mode of DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM out of the test vectors that RFC 9180 names: the suite
 * that image credentials are sealed with. Its 1000 encryptions and 1000 exports are told by a hash of all of them, with
 * inputs drawn from SHAKE128, as in Go's crypto/hpke (BSD licence), whose values these are.
 */
const own = {
  info: "4f6465206f6e2061204772656369616e2055726e",
  ikmE: "2cd7c601cefb3d42a62b04b7a9041494c06c7843818e0ce28a8f704ae7ab20f9",
  ikmR: "dac33b0e9db1b59dbbea58d59a14e7b5896e9bdf98fad6891e99d1686492b9ee",
  skRm: "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d",
  pkRm: "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c",
  enc: "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256",
  encryptions: "1702e73e1e71705faa8241022af1deea",
  exports: "5cb678bf1c52afbd9afb58b8f7c1ced3",
};
const rounds = 1000;

const hex = (text: string) => Uint8Array.from(Buffer.from(text, "hex"));
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

/** The suite with a sender whose ephemeral key is the vector's. */
const suite = new CipherSuite(
  () => {
    const kem = KEM_DHKEM_X25519_HKDF_SHA256();
    return { ...kem, GenerateKeyPair: (extractable) => kem.DeriveKeyPair(hex(own.ikmE), extractable) };
  },
  KDF_HKDF_SHA256,
  AEAD_AES_256_GCM,
);

/** Byte strings of 0 to 255 bytes out of SHAKE128 of nothing, their length before each. */
function* draw(): Generator<Uint8Array, never> {
  const stream = createHash("shake128", { outputLength: 2 * rounds * 256 }).digest();
  for (let at = 0; ; at += 1 + (stream[at] as number)) {
    yield Uint8Array.from(stream.subarray(at + 1, at + 1 + (stream[at] as number)));
  }
}

async function bothEnds() {
  const pair = await suite.DeriveKeyPair(hex(own.ikmR), true);
  expect(text(await suite.SerializePublicKey(pair.publicKey))).toBe(own.pkRm);
  expect(text(await suite.SerializePrivateKey(pair.privateKey))).toBe(own.skRm);
  const info = hex(own.info);
  const { encapsulatedSecret, ctx: sender } = await suite.SetupSender(pair.publicKey, { info });
  expect(text(encapsulatedSecret)).toBe(own.enc);
  return { sender, recipient: await suite.SetupRecipient(pair, hex(own.enc), { info }) };
}

test("the suite in use gives the encryptions of RFC 9180's vectors, and opens them", async () => {
  const { sender, recipient } = await bothEnds();
  const inputs = draw();
  const all = createHash("shake128", { outputLength: 16 });
  for (let round = 0; round < rounds; round += 1) {
    const [aad, plaintext] = [inputs.next().value, inputs.next().value];
    const ciphertext = await sender.Seal(plaintext, aad);
    all.update(ciphertext);
    expect(text(await recipient.Open(ciphertext, aad))).toBe(text(plaintext));
  }
  expect(all.digest("hex")).toBe(own.encryptions);
});

test("both ends of the suite in use export the secrets of RFC 9180's vectors", async () => {
  const { sender, recipient } = await bothEnds();
  const inputs = draw();
  const all = createHash("shake128", { outputLength: 16 });
  for (let length = 0; length < rounds; length += 1) {
    const context = inputs.next().value;
    if (length === 0) continue;
    const value = await sender.Export(context, length);
    all.update(value);
    expect(text(await recipient.Export(context, length))).toBe(text(value));
  }
  expect(all.digest("hex")).toBe(own.exports);
});

test("the HPKE library gives the example of RFC 9180, A.1.1", async () => {
  const hex = (text: string) => Uint8Array.from(Buffer.from(text, "hex"));
  const suite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_128_GCM);
  const pair = await suite.DeriveKeyPair(
    hex("6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037"),
  );
  expect(Buffer.from(await suite.SerializePublicKey(pair.publicKey)).toString("hex")).toBe(
    "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
  );
  const plaintext = await suite.Open(
    pair,
    hex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"),
    hex("f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"),
    { info: hex("4f6465206f6e2061204772656369616e2055726e"), aad: hex("436f756e742d30") },
  );
  expect(new TextDecoder().decode(plaintext)).toBe("Beauty is truth, truth beauty");
});
