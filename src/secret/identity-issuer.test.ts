import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq } from "drizzle-orm";
import { calculateJwkThumbprint, type JWK } from "jose";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { identityKeys } from "../db/schema-cluster.ts";
import { IdentityIssuer } from "./identity-issuer.ts";
import { IdentityKeyStore } from "./identity-key-store.ts";
import { IdentityKeys, planKeys } from "./identity-keys.ts";
import { type KeyEncryptionKey, KeyFile } from "./kek.ts";
import { singleKey } from "./keyring.ts";

const dayMs = 24 * 3_600_000;
/** A process looks at the rows once a minute. */
const minuteMs = 60_000;
const url = "https://id.example.com/node";
const workspace = { id: "6f1c2d7e-0000-4000-8000-000000000001", name: "acme" };
const keyPath = join(tmpdir(), `oci-node-issuer-${process.pid}-${Date.now()}`);
let server: TestPostgres;
let kek: KeyEncryptionKey;
let nowMs = 0;

beforeAll(async () => {
  server = await startTestPostgres();
  kek = await KeyFile.open(keyPath, { create: true });
}, 60_000);
afterAll(async () => {
  await server.end();
  await rm(keyPath, { force: true });
}, 60_000);
beforeEach(async () => {
  nowMs = Date.parse("2026-01-01T00:00:00Z");
  await server.database.query((db) => db.delete(identityKeys));
});

/** An issuer as one process has it, on the test's clock. */
function issuer(): IdentityIssuer {
  const now = () => nowMs;
  return new IdentityIssuer(
    url,
    new IdentityKeys(new IdentityKeyStore(server.database), singleKey(kek), now),
    now,
  );
}

type Json = Record<string, unknown>;

/** Verifies a token with nothing but node:crypto and the published keys, as a cloud would, and gives its claims. */
function verified(token: string, keys: readonly object[]): { header: Json; claims: Json } {
  const [head = "", body = "", signature = ""] = token.split(".");
  const decoded = (part: string) => JSON.parse(Buffer.from(part, "base64url").toString()) as Json;
  const header = decoded(head);
  const jwk = keys.find((key) => (key as Json)["kid"] === header["kid"]);
  if (jwk === undefined) throw new Error(`no published key ${header["kid"]}`);
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const signed = Buffer.from(`${head}.${body}`);
  if (!verify("RSA-SHA256", signed, key, Buffer.from(signature, "base64url")))
    throw new Error("bad signature");
  return { header, claims: decoded(body) };
}

describe("a workspace's token", () => {
  test("says who it is, to one audience, for ten minutes, and verifies under the published key", async () => {
    const one = issuer();
    const token = await one.token(workspace, "sts.amazonaws.com");
    expect(`${token}`).toBe("[redacted]");
    const { keys } = await one.keySet();
    const { header, claims } = verified(token.expose(), keys);
    expect(header).toEqual({ alg: "RS256", typ: "JWT", kid: keys[0]?.kid as string });
    const seconds = nowMs / 1000;
    expect(claims).toEqual({
      iss: url,
      sub: "workspace:acme",
      aud: "sts.amazonaws.com",
      iat: seconds - 30,
      nbf: seconds - 30,
      exp: seconds + 570,
      jti: expect.stringMatching(/^[0-9a-f-]{36}$/),
      workspace_id: workspace.id,
    });
    const other = verified((await one.token(workspace, "x")).expose(), keys);
    expect(other.claims["jti"]).not.toBe(claims["jti"] as string);
  });

  test("does not verify when a bit of it is changed", async () => {
    const one = issuer();
    const [head, body = "", signature] = (await one.token(workspace, "x")).expose().split(".");
    const claims = JSON.parse(Buffer.from(body, "base64url").toString()) as Json;
    const forged = Buffer.from(JSON.stringify({ ...claims, sub: "workspace:other" })).toString("base64url");
    const { keys } = await one.keySet();
    expect(() => verified(`${head}.${forged}.${signature}`, keys)).toThrow("bad signature");
  });
});

describe("what the issuer publishes", () => {
  test("is a discovery document with the issuer's very URL, and public keys only", async () => {
    const one = issuer();
    expect(one.discovery()).toMatchObject({
      issuer: url,
      jwks_uri: `${url}/.well-known/jwks.json`,
      response_types_supported: ["id_token"],
      subject_types_supported: ["public"],
      id_token_signing_alg_values_supported: ["RS256"],
    });
    const { keys } = await one.keySet();
    expect(keys).toHaveLength(1);
    expect(Object.keys(keys[0] ?? {}).sort()).toEqual(["alg", "e", "kid", "kty", "n", "use"]);
  });

  test("is one key although several processes needed the first at the same moment", async () => {
    const issuers = Array.from({ length: 6 }, () => issuer());
    const tokens = await Promise.all(issuers.map((each) => each.token(workspace, "x")));
    const sets = await Promise.all(issuers.map((each) => each.keySet()));
    expect(new Set(sets.map(({ keys }) => JSON.stringify(keys))).size).toBe(1);
    for (const token of tokens) verified(token.expose(), sets[0]?.keys ?? []);
  });
});

describe("a key that somebody writes into the table", () => {
  const insert = (row: typeof identityKeys.$inferInsert) =>
    server.database.query((db) => db.insert(identityKeys).values(row));

  test("is not published: its private half is nowhere that opens", async () => {
    await issuer().keySet();
    const [row] = await new IdentityKeyStore(server.database).list();
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const publicJwk = publicKey.export({ format: "jwk" }) as JWK;
    await insert({ ...row!, id: await calculateJwkThumbprint(publicJwk), publicJwk });
    const { keys } = await issuer().keySet();
    expect(keys.map(({ kid }) => kid)).toEqual([row?.id as string]);
  });

  test("is not published in the place of another, nor is anything beside a key", async () => {
    const before = await issuer().keySet();
    const [row] = await new IdentityKeyStore(server.database).list();
    await server.database.query((db) => db.delete(identityKeys));
    await insert({ ...row!, publicJwk: { ...row!.publicJwk, x5u: "https://elsewhere.example" } });
    expect(await issuer().keySet()).toEqual(before);
    await server.database.query((db) => db.delete(identityKeys));
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    await insert({ ...row!, publicJwk: publicKey.export({ format: "jwk" }) as JWK });
    expect((await issuer().keySet()).keys).toEqual([]);
  });
});

describe("the signing key", () => {
  test("is followed after 90 days, by one that is published a day before it signs; the old one leaves a day later", async () => {
    const started = nowMs;
    const kidOf = async (of: IdentityIssuer) => {
      const { keys } = await of.keySet();
      const { header } = verified((await of.token(workspace, "x")).expose(), keys);
      return { signing: header["kid"], published: keys.map(({ kid }) => kid) };
    };
    const one = issuer();
    const first = (await kidOf(one)).signing;
    nowMs = started + 90 * dayMs - minuteMs;
    expect(await kidOf(one)).toEqual({ signing: first, published: [first as string] });
    nowMs = started + 90 * dayMs;
    const announced = await kidOf(one);
    expect(announced.signing).toBe(first);
    expect(announced.published).toHaveLength(2);
    const second = announced.published[1];
    nowMs = started + 91 * dayMs;
    expect(await kidOf(one)).toEqual({ signing: second, published: [first as string, second] });
    nowMs = started + 92 * dayMs - minuteMs;
    expect((await kidOf(one)).published).toEqual([first as string, second]);
    nowMs = started + 92 * dayMs;
    expect(await kidOf(one)).toEqual({ signing: second, published: [second] });
  });

  test("of a node that was away for long is used until its successor was published for a day", async () => {
    const { signing } = planKeys([{ id: "old", createdAt: new Date(nowMs - 400 * dayMs) }], nowMs);
    expect(signing).toBe("old");
    const both = [
      { id: "old", createdAt: new Date(nowMs - 400 * dayMs) },
      { id: "new", createdAt: new Date(nowMs) },
    ];
    expect(planKeys(both, nowMs + dayMs - 1)).toMatchObject({ signing: "old", needsSuccessor: false });
    expect(planKeys(both, nowMs + dayMs)).toMatchObject({ signing: "new", published: ["old", "new"] });
  });

  test("leaves the database at the next change, once it is not published", async () => {
    await issuer().keySet();
    for (const days of [90, 181, 272]) {
      nowMs = Date.parse("2026-01-01T00:00:00Z") + days * dayMs;
      await issuer().keySet();
    }
    expect(await new IdentityKeyStore(server.database).list()).toHaveLength(2);
  });

  test("is nowhere in the clear in its row, and opens at its own place only", async () => {
    await issuer().token(workspace, "x");
    const [row] = await new IdentityKeyStore(server.database).list();
    expect(Buffer.from(row?.wrappedPrivateKey ?? []).toString("latin1")).not.toContain("PRIVATE KEY");
    const put = (change: Partial<typeof identityKeys.$inferInsert>) =>
      server.database.query((db) =>
        db
          .update(identityKeys)
          .set(change)
          .where(eq(identityKeys.id, row?.id ?? "")),
      );
    const damaged = Buffer.from(row?.wrappedPrivateKey ?? []);
    damaged[damaged.length - 1] = (damaged[damaged.length - 1] ?? 0) ^ 1;
    for (const change of [
      { id: "other" },
      { wrappedPrivateKey: damaged },
      { wrappedPrivateKey: Buffer.alloc(1) },
    ]) {
      await put(change);
      await expect(issuer().token(workspace, "x")).rejects.toMatchObject({ code: "undecryptable" });
      await server.database.query((db) => db.delete(identityKeys));
      await server.database.query((db) => db.insert(identityKeys).values(row!));
    }
    const otherPath = `${keyPath}-other`;
    try {
      const other = await KeyFile.open(otherPath, { create: true });
      const keys = new IdentityKeys(new IdentityKeyStore(server.database), singleKey(other), () => nowMs);
      const error = await new IdentityIssuer(url, keys).token(workspace, "x").catch((thrown) => thrown);
      expect(error).toMatchObject({ code: "undecryptable" });
      expect(error.message).toContain(`the key file holds ${other.id}`);
    } finally {
      await rm(otherPath);
    }
  });
});
