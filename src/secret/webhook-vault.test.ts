import { expect, test } from "bun:test";
import { createHmac, randomBytes } from "node:crypto";
import { inspect } from "node:util";
import { Redacted } from "../std/redacted.ts";
import { newSigningSecret, type SealedWebhook, signWebhook, WebhookVault } from "./webhook-vault.ts";

const keys = new Map([randomBytes(32), randomBytes(32)].map((key, index) => [`w${index}`, key]));
const vault = new WebhookVault({ key: async (id) => new Uint8Array(keys.get(id) ?? []) });
const place = { workspaceId: "w0", id: "one" };
const address = "https://hooks.example/services/the-token-in-the-path";

test("address and signing secret come back, and are shown by nothing", async () => {
  const signingSecret = newSigningSecret();
  const sealed = await vault.seal(place, new Redacted(address), signingSecret);
  const open = await vault.open(place, sealed);
  expect([open.url.expose(), open.signingSecret.expose()]).toEqual([address, signingSecret]);
  expect(inspect(open, { depth: 5 }) + JSON.stringify(open)).not.toMatch(/token-in-the-path|whsec_/);
  expect(Buffer.from(sealed.ciphertext).toString("latin1")).not.toContain("token-in-the-path");
});

test("what is sealed opens at its own place and unchanged only", async () => {
  const sealed = await vault.seal(place, new Redacted(address), newSigningSecret());
  const other = await vault.seal({ ...place, id: "two" }, new Redacted(address), newSigningSecret());
  const flip = (bytes: Uint8Array, at: number) =>
    bytes.map((byte, index) => (index === at ? byte ^ 1 : byte));
  const changed: Partial<SealedWebhook>[] = [
    { wrappedDataKey: other.wrappedDataKey },
    { nonce: other.nonce },
    { ciphertext: other.ciphertext },
    { keyId: "0123456789abcdef" },
    { ciphertext: flip(sealed.ciphertext, 0) },
    { ciphertext: sealed.ciphertext.subarray(0, -1) },
    { ciphertext: sealed.ciphertext.subarray(0, 4) },
    { wrappedDataKey: new Uint8Array(0) },
  ];
  for (const change of changed)
    await expect(vault.open(place, { ...sealed, ...change })).rejects.toMatchObject({
      code: "undecryptable",
    });
  for (const elsewhere of [
    { workspaceId: "w0", id: "two" },
    { workspaceId: "w1", id: "one" },
  ])
    await expect(vault.open(elsewhere, sealed)).rejects.toMatchObject({ code: "undecryptable" });
});

test("a workspace whose key was given another's row still does not open it", async () => {
  keys.set("w2", keys.get("w0") ?? randomBytes(32));
  const sealed = await vault.seal(place, new Redacted(address), newSigningSecret());
  await expect(vault.open({ ...place, workspaceId: "w2" }, sealed)).rejects.toMatchObject({
    code: "undecryptable",
  });
});

test("signs as Standard Webhooks does: the specification's own example", () => {
  const headers = signWebhook(
    new Redacted("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    "msg_p5jXN8AQM9LWM0D4loKWxJek",
    1614265330,
    '{"test": 2432232314}',
  );
  expect(headers).toEqual({
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  });
});

test("a new signing secret is whsec_ and 32 bytes, another each time", () => {
  const secrets = [newSigningSecret(), newSigningSecret()];
  for (const secret of secrets) {
    expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    const key = Buffer.from(secret.slice(6), "base64");
    const { "webhook-signature": signature } = signWebhook(new Redacted(secret), "a", 1, "b");
    expect(signature).toBe(`v1,${createHmac("sha256", key).update("a.1.b").digest("base64")}`);
  }
  expect(secrets[0]).not.toBe(secrets[1]);
});
