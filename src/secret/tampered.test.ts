import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { and, eq, inArray, sql } from "drizzle-orm";
import type { Identity, IssuerFetch } from "../credential/issuer.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { secrets, secretVersions, workspaces } from "../db/schema.ts";
import { Redacted } from "../std/redacted.ts";
import { SecretError } from "./error.ts";
import { FakeGcpKms } from "./gcp-kms.test-kit.ts";
import { KeyFile } from "./kek.ts";
import { GcpKmsKey } from "./key-gcp-kms.ts";
import { type Keyring, openUnder, type SealPlace, sealUnder, singleKey } from "./keyring.ts";
import { SecretStore } from "./store.ts";
import { Vault } from "./vault.ts";
import { WorkspaceStore, workspaceKeyAad } from "./workspace-store.ts";

type Version = typeof secretVersions.$inferSelect;

let server: TestPostgres;
let folder: string;
let kek: KeyFile;
let another: KeyFile;
/** Two keys, as during a rotation: whatever a row names is tried. */
let ring: Keyring;
let store: WorkspaceStore;
let vault: Vault;

beforeAll(async () => {
  server = await startTestPostgres();
  folder = await mkdtemp(join(tmpdir(), "oci-node-tampered-"));
  kek = (await KeyFile.makeIn(folder)).key;
  another = (await KeyFile.makeIn(folder)).key;
  const keys = [kek, another];
  ring = {
    primary: async () => kek,
    async key(id) {
      const key = keys.find((each) => each.id === id);
      if (key === undefined) throw new SecretError("undecryptable", `no key ${id}`);
      return key;
    },
  };
  store = new WorkspaceStore(server.database, ring);
  vault = new Vault({ store: new SecretStore(server.database), workspaces: store });
}, 60_000);
afterAll(async () => {
  await server.end();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

/** What is put in the place of bytes: a bit turned over in each byte, every shorter length, one byte more, other bytes. */
function* changesOf(bytes: Uint8Array): Generator<[what: string, changed: Uint8Array]> {
  for (let index = 0; index < bytes.length; index += 1) {
    for (const bit of [0x01, 0x80]) {
      const changed = Uint8Array.from(bytes);
      changed[index] = (changed[index] ?? 0) ^ bit;
      yield [`byte ${index} ^ ${bit}`, changed];
    }
  }
  for (let length = 0; length < bytes.length; length += 1) {
    yield [`the first ${length} bytes`, bytes.subarray(0, length)];
    yield [`the last ${length} bytes`, bytes.subarray(bytes.length - length)];
  }
  yield ["one byte more", Buffer.concat([bytes, new Uint8Array(1)])];
  yield ["zeros", new Uint8Array(bytes.length)];
}

/** Lists the changes after which something opens: there must be none, whatever it would have shown. */
async function opening(tries: AsyncIterable<readonly [string, () => Promise<unknown>]>): Promise<string[]> {
  const opened: string[] = [];
  for await (const [what, open] of tries) {
    const error = await open().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (!(error instanceof SecretError) || error.code !== "undecryptable") opened.push(what);
  }
  return opened;
}

const isVersion = ({ secretId, version }: Pick<Version, "secretId" | "version">) =>
  and(eq(secretVersions.secretId, secretId), eq(secretVersions.version, version));

async function putVersion(row: Version, change: Partial<Version>): Promise<void> {
  await server.database.query((db) => db.update(secretVersions).set(change).where(isVersion(row)));
}

async function versionsOf(ids: readonly string[]): Promise<Version[]> {
  return await server.database.query((db) =>
    db
      .select()
      .from(secretVersions)
      .where(inArray(secretVersions.secretId, [...ids]))
      .orderBy(secretVersions.secretId, secretVersions.version),
  );
}

async function putWorkspace(id: string, change: Partial<typeof workspaces.$inferInsert>): Promise<void> {
  await server.database.query((db) => db.update(workspaces).set(change).where(eq(workspaces.id, id)));
}

async function workspaceRow(id: string) {
  const [row] = await server.database.query((db) =>
    db.select().from(workspaces).where(eq(workspaces.id, id)),
  );
  if (row === undefined) throw new Error("there is no such workspace");
  return row;
}

let count = 0;
async function makeWorkspace(): Promise<string> {
  count += 1;
  return (await store.create(`w-${count}`)).id;
}

describe("a secret's version does not open", () => {
  test.each(["wrappedDataKey", "nonce", "ciphertext"] as const)("with another %s", async (column) => {
    const workspaceId = await makeWorkspace();
    const { id } = await vault.create({ workspaceId, name: "s", value: new Redacted("a value") });
    const [row] = await versionsOf([id]);
    if (row === undefined) throw new Error("there is no version");
    async function* tries() {
      for (const [what, changed] of changesOf((row as Version)[column])) {
        await putVersion(row as Version, { [column]: changed });
        yield [what, () => vault.read(workspaceId, "s")] as const;
      }
    }
    expect(await opening(tries())).toEqual([]);
    await putVersion(row, row);
    expect((await vault.read(workspaceId, "s")).value.expose()).toBe("a value");
  });

  test("with a tag of 0 to 15 bytes, of the value and of its data key", async () => {
    const workspaceId = await makeWorkspace();
    const { id } = await vault.create({ workspaceId, name: "s", value: new Redacted("v") });
    const [row] = await versionsOf([id]);
    async function* tries({ ciphertext, wrappedDataKey, ...of }: Version) {
      const row = { ciphertext, wrappedDataKey, ...of };
      for (let length = 0; length < 16; length += 1) {
        await putVersion(row, { ciphertext: ciphertext.subarray(0, ciphertext.length - 16 + length) });
        yield [`a value's tag of ${length}`, () => vault.read(workspaceId, "s")] as const;
        await putVersion(row, {
          ciphertext,
          wrappedDataKey: wrappedDataKey.subarray(0, wrappedDataKey.length - 16 + length),
        });
        yield [`a data key's tag of ${length}`, () => vault.read(workspaceId, "s")] as const;
        await putVersion(row, { wrappedDataKey });
      }
    }
    expect(await opening(tries(row as Version))).toEqual([]);
  });

  test("in the place of another secret, version, name or workspace, as a whole or in parts", async () => {
    const [mine, theirs] = [await makeWorkspace(), await makeWorkspace()];
    const made = [
      await vault.create({ workspaceId: mine, name: "s", value: new Redacted("mine s 1") }),
      await vault.create({ workspaceId: mine, name: "t", value: new Redacted("mine t 1") }),
      await vault.create({ workspaceId: theirs, name: "s", value: new Redacted("theirs s 1") }),
    ];
    for (const { workspaceId, name } of made) {
      await vault.update(workspaceId, name, new Redacted(`${workspaceId} ${name} 2`));
    }
    const rows = await versionsOf(made.map(({ id }) => id));
    expect(rows).toHaveLength(6);
    const parts: (keyof Version)[][] = [
      ["wrappedDataKey"],
      ["nonce"],
      ["ciphertext"],
      ["nonce", "ciphertext"],
      ["wrappedDataKey", "nonce", "ciphertext"],
      ["wrappedDataKey", "nonce", "ciphertext", "keyId"],
    ];
    async function* tries() {
      for (const target of rows.filter(({ version }) => version === 2)) {
        const secret = made.find(({ id }) => id === target.secretId);
        for (const source of rows.filter((row) => row !== target)) {
          for (const columns of parts) {
            await putVersion(target, Object.fromEntries(columns.map((column) => [column, source[column]])));
            const what = `${columns} of ${source.secretId} ${source.version} in ${target.secretId}`;
            yield [what, () => vault.read(secret?.workspaceId ?? "", target.secretId)] as const;
            await putVersion(target, target);
          }
        }
      }
    }
    expect(await opening(tries())).toEqual([]);
    for (const { id, workspaceId } of made) expect((await vault.read(workspaceId, id)).version).toBe(2);
  });

  test("under another name, in another workspace, or as another number", async () => {
    const [mine, theirs] = [await makeWorkspace(), await makeWorkspace()];
    const { id } = await vault.create({ workspaceId: mine, name: "s", value: new Redacted("value") });
    const put = (change: object) =>
      server.database.query((db) => db.update(secrets).set(change).where(eq(secrets.id, id)));
    const standing = { name: "s", workspaceId: mine, currentVersion: 1 };
    const [row] = await versionsOf([id]);
    async function* tries() {
      await put({ name: "renamed" });
      yield ["renamed", () => vault.read(mine, id)] as const;
      await put({ ...standing, workspaceId: theirs });
      yield ["moved", () => vault.read(theirs, id)] as const;
      await put({ ...standing, currentVersion: 2 });
      await putVersion(row as Version, { version: 2 });
      yield ["renumbered", () => vault.read(mine, id)] as const;
      await putVersion({ secretId: id, version: 2 } as Version, { version: 1 });
      await put(standing);
      await putVersion(row as Version, { keyId: "0123456789abcdef" });
      yield ["another workspace key's id", () => vault.read(mine, id)] as const;
      await putVersion(row as Version, row as Version);
    }
    expect(await opening(tries())).toEqual([]);
    expect((await vault.read(mine, id)).value.expose()).toBe("value");
  });
});

test("a secret that takes another's name and versions is not the other", async () => {
  const workspaceId = await makeWorkspace();
  const made = [
    await vault.create({ workspaceId, name: "s", value: new Redacted("of s") }),
    await vault.create({ workspaceId, name: "t", value: new Redacted("of t") }),
  ];
  const rows = await versionsOf(made.map(({ id }) => id));
  const [ofS, ofT] = made.map(({ id }) => rows.find((row) => row.secretId === id) as Version);
  const rename = (id: string, name: string) =>
    server.database.query((db) => db.update(secrets).set({ name }).where(eq(secrets.id, id)));
  await rename(made[0]?.id ?? "", "aside");
  await rename(made[1]?.id ?? "", "s");
  const { secretId: _, ...others } = ofS as Version;
  await putVersion(ofT as Version, others);
  async function* tries() {
    yield ["the taken name", () => vault.read(workspaceId, "s")] as const;
  }
  expect(await opening(tries())).toEqual([]);
});

describe("a workspace's key does not open", () => {
  test("with a bit turned over, cut off, longer, or as zeros", async () => {
    const id = await makeWorkspace();
    const row = await workspaceRow(id);
    async function* tries() {
      for (const [what, wrappedKey] of changesOf(row.wrappedKey)) {
        await putWorkspace(id, { wrappedKey });
        yield [what, () => store.key(id)] as const;
      }
    }
    expect(await opening(tries())).toEqual([]);
    await putWorkspace(id, row);
    (await store.key(id)).fill(0);
  });

  test("in another workspace's row, under another key's id, or wrapped by another key", async () => {
    const [one, two] = [await makeWorkspace(), await makeWorkspace()];
    const row = await workspaceRow(one);
    const { wrappedKey } = await workspaceRow(two);
    const plain = new Uint8Array(32).fill(3);
    const wrap = async (key: KeyFile, place: string, keyId: string) => ({
      wrappedKey: await key.wrap(plain, workspaceKeyAad(place, keyId)),
    });
    async function* tries() {
      const changes: [string, Partial<typeof row>][] = [
        ["another workspace's", { wrappedKey }],
        ["another key's id", { keyId: another.id }],
        ["an unknown key's id", { keyId: "0123456789abcdef" }],
        ["another key's, under this one's id", await wrap(another, one, kek.id)],
        ["another key's, bound to its own id", await wrap(another, one, another.id)],
        ["this key's, bound to the other's id", await wrap(kek, one, another.id)],
        ["this key's, for another workspace", await wrap(kek, two, kek.id)],
      ];
      for (const [what, change] of changes) {
        await putWorkspace(one, { ...row, ...change });
        yield [what, () => store.key(one)] as const;
      }
    }
    expect(await opening(tries())).toEqual([]);
    await putWorkspace(one, { ...row, ...(await wrap(kek, one, kek.id)) });
    expect(await store.key(one)).toEqual(Buffer.from(plain));
  });
});

describe("what is sealed outside of workspaces does not open", () => {
  const place: SealPlace = { kind: "identity key", id: "kid", part: "private key" };

  test("with a bit turned over, cut off, longer, or as zeros", async () => {
    const { sealed, keyId } = await sealUnder(ring, place, Buffer.from("a private key"));
    async function* tries() {
      for (const [what, changed] of changesOf(sealed)) {
        yield [what, () => openUnder(ring, place, { sealed: changed, keyId })] as const;
      }
    }
    expect(await opening(tries())).toEqual([]);
    expect(String(await openUnder(ring, place, { sealed, keyId }))).toBe("a private key");
  });

  test("in another place, under another key's id, or with another's data key", async () => {
    const { sealed, keyId } = await sealUnder(ring, place, Buffer.from("a private key"));
    const other = { ...place, id: "kid-2" };
    const theirs = (await sealUnder(ring, other, Buffer.from("their private key"))).sealed;
    const keyEnd = 2 + Buffer.from(sealed).readUInt16BE();
    const mixed = Buffer.concat([theirs.subarray(0, keyEnd), sealed.subarray(keyEnd)]);
    async function* tries() {
      const places = [other, { ...place, kind: "cluster authority" }, { ...place, part: "certificate" }];
      for (const there of places) {
        yield [JSON.stringify(there), () => openUnder(ring, there, { sealed, keyId })] as const;
      }
      const swapped = { sealed, keyId: another.id };
      yield ["another key's id", () => openUnder(ring, place, swapped)] as const;
      yield ["another's data key", () => openUnder(ring, place, { sealed: mixed, keyId })] as const;
      yield ["with another ring", () => openUnder(singleKey(another), place, { sealed, keyId })] as const;
    }
    expect(await opening(tries())).toEqual([]);
  });
});

test("a workspace's wrapped key is overwritten before its row goes", async () => {
  const statements = [
    sql`create table gone_keys (wrapped_key bytea)`,
    sql`create function keep_gone_key() returns trigger language plpgsql as
      $$ begin insert into gone_keys values (old.wrapped_key); return old; end $$`,
    sql`create trigger keep_gone_key before delete on workspaces for each row execute function keep_gone_key()`,
  ];
  for (const statement of statements) await server.database.query((db) => db.execute(statement));
  const { name } = await workspaceRow(await makeWorkspace());
  await store.remove(name);
  const [gone] = await server.database.query((db) => db.execute(sql`select * from gone_keys`));
  expect(gone?.["wrapped_key"]).toEqual(Buffer.alloc(60));
  await server.database.query((db) => db.execute(sql`drop trigger keep_gone_key on workspaces`));
});

test("a workspace's key that a key service opened is forgotten with the workspace", async () => {
  const kms = new FakeGcpKms();
  const name = "projects/acme/locations/global/keyRings/oci/cryptoKeys/kek";
  kms.addKey(name);
  const identity: Identity = {
    name: "vm",
    provider: () => {
      throw new Error("no registry is asked for here");
    },
    googleToken: async () => new Redacted("token"),
  };
  const send: IssuerFetch = async (url, { method = "GET", headers, body }) => {
    const { host, pathname: path, searchParams: query } = new URL(url);
    return kms.answer({ method, host, path, query, headers: new Headers(headers), body: String(body) });
  };
  const inService = new WorkspaceStore(server.database, singleKey(new GcpKmsKey({ name, identity, send })));
  const { id } = await inService.create("in-service");
  for (const _ of [1, 2]) (await inService.key(id)).fill(0);
  expect(kms.asked).toBe(2);
  const row = await workspaceRow(id);
  await inService.remove("in-service");
  await server.database.query((db) => db.insert(workspaces).values(row));
  kms.mayUse = () => false;
  await expect(inService.key(id)).rejects.toMatchObject({ code: "key_refused" });
});

test("of a removed workspace nothing opens, although all else of it is put back from a dump", async () => {
  const workspaceId = await makeWorkspace();
  const { id } = await vault.create({ workspaceId, name: "s", value: new Redacted("value") });
  const dump = {
    workspace: await workspaceRow(workspaceId),
    secrets: await server.database.query((db) => db.select().from(secrets).where(eq(secrets.id, id))),
    versions: await versionsOf([id]),
  };
  const putBack = async (row: typeof dump.workspace) => {
    await server.database.query((db) => db.insert(workspaces).values(row));
    await server.database.query((db) => db.insert(secrets).values(dump.secrets));
    await server.database.query((db) => db.insert(secretVersions).values(dump.versions));
  };
  const { name } = dump.workspace;
  // Nobody has its key any more: neither zeros in its place nor the key of a workspace that is made anew opens anything.
  const wrapped = await kek.wrap(new Uint8Array(32).fill(1), workspaceKeyAad(workspaceId, kek.id));
  for (const wrappedKey of [new Uint8Array(60), wrapped]) {
    await store.remove(name);
    await putBack({ ...dump.workspace, wrappedKey });
    async function* tries() {
      yield ["a read", () => vault.read(workspaceId, "s")] as const;
    }
    expect(await opening(tries())).toEqual([]);
  }
  // With it, a dump opens: what shreds for good is that no copy of the row is left, or no copy of the key above it.
  await store.remove(name);
  await putBack(dump.workspace);
  expect((await vault.read(workspaceId, "s")).value.expose()).toBe("value");
});
