import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { eq } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { clusterAuthorities } from "../db/schema-cluster.ts";
import { LocalKey } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { ClusterAuthorities } from "./authorities.ts";
import { AuthorityStore } from "./authority-store.ts";
import { makeAuthority } from "./certificate.ts";
import { ControlPlaneIdentity } from "./control-plane-identity.ts";
import { authorityId } from "./join-token.ts";

let server: TestPostgres;
let store: AuthorityStore;
const ring = singleKey(new LocalKey("env", new Uint8Array(32).fill(7)));

beforeAll(async () => {
  server = await startTestPostgres();
  store = new AuthorityStore(server.database);
}, 60_000);
beforeEach(async () => void (await server.database.query((db) => db.delete(clusterAuthorities))));
afterAll(() => server.end());

test("several processes that start at once make one authority, and each can sign with it", async () => {
  const opened = await Promise.all(Array.from({ length: 8 }, () => ClusterAuthorities.open(store, ring)));
  expect(await store.list()).toHaveLength(1);
  expect(new Set(opened.map(({ pem }) => pem)).size).toBe(1);
  for (const each of opened) (await ControlPlaneIdentity.start(each, 60_000)).close();
});

test("all authorities are trusted, and the newest signs", async () => {
  const first = await ClusterAuthorities.open(store, ring);
  const [row] = await store.list();
  await server.database.query((db) => db.delete(clusterAuthorities));
  const second = await ClusterAuthorities.open(store, ring);
  await server.database.query((db) =>
    db.insert(clusterAuthorities).values({ ...row!, createdAt: new Date(Date.now() - 60_000) }),
  );
  const both = await ClusterAuthorities.open(store, ring);
  expect(both.trusted).toEqual([...second.trusted, ...first.trusted]);
});

test("the key is not in the row, opens under its own key alone, and in its own row alone", async () => {
  await ClusterAuthorities.open(store, ring);
  const [row] = (await store.list()) as [Awaited<ReturnType<typeof store.list>>[number]];
  expect(Buffer.from(row.wrappedPrivateKey).toString("latin1")).not.toContain(
    "\x06\x08*\x86H\xce=\x03\x01\x07",
  );
  const other = singleKey(new LocalKey("env", new Uint8Array(32).fill(8)));
  await expect(ClusterAuthorities.open(store, other)).rejects.toMatchObject({ code: "undecryptable" });
  await server.database.query((db) =>
    db
      .update(clusterAuthorities)
      .set({ id: "0".repeat(64) })
      .where(eq(clusterAuthorities.id, row.id)),
  );
  await expect(ClusterAuthorities.open(store, ring)).rejects.toMatchObject({ code: "undecryptable" });
});

test("whoever writes the table has no authority of his own trusted, in a row of his nor in another's", async () => {
  const own = await ClusterAuthorities.open(store, ring);
  const [row] = (await store.list()) as [Awaited<ReturnType<typeof store.list>>[number]];
  const { certificate: certificatePem } = await makeAuthority(Date.now());
  const id = authorityId(new X509Certificate(certificatePem).raw);
  // The best that he has for a sealed key is another row's.
  await server.database.query((db) =>
    db.insert(clusterAuthorities).values({ ...row, id, certificatePem, createdAt: new Date(0) }),
  );
  expect((await ClusterAuthorities.open(store, ring)).trusted).toEqual(own.trusted);
  await server.database.query((db) =>
    db.update(clusterAuthorities).set({ certificatePem }).where(eq(clusterAuthorities.id, row.id)),
  );
  await expect(ClusterAuthorities.open(store, ring)).rejects.toMatchObject({ code: "undecryptable" });
});

test("the control plane's certificate is followed by another, with another key, before it ends", async () => {
  const identity = await ControlPlaneIdentity.start(await ClusterAuthorities.open(store, ring), 2_000);
  try {
    const first = identity.current;
    const renewed = await new Promise<typeof first>((resolve) => identity.onRenewed(resolve));
    expect(identity.current).toBe(renewed);
    expect(renewed.secureContext().key).not.toBe(first.secureContext().key);
    expect(renewed.authorities).toBe(first.authorities);
  } finally {
    identity.close();
  }
});
