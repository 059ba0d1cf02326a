import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { and, eq, sql } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { images, secrets, secretVersions, workspaces } from "../db/schema.ts";
import { Redacted } from "../std/redacted.ts";
import { SecretError, type SecretErrorCode } from "./error.ts";
import { KeyFile } from "./kek.ts";
import { singleKey } from "./keyring.ts";
import { SecretStore } from "./store.ts";
import { Vault } from "./vault.ts";
import { WorkspaceStore } from "./workspace-store.ts";

let server: TestPostgres;
let vault: Vault;
let workspaceStore: WorkspaceStore;
let workspaceId: string;
const keyPath = join(tmpdir(), `oci-node-vault-${process.pid}-${Date.now()}`);

beforeAll(async () => {
  server = await startTestPostgres();
  workspaceStore = new WorkspaceStore(
    server.database,
    singleKey(await KeyFile.open(keyPath, { create: true })),
  );
  vault = new Vault({ store: new SecretStore(server.database), workspaces: workspaceStore });
}, 60_000);
beforeEach(async () => {
  workspaceId = (await workspaceStore.ensure(`w-${crypto.randomUUID()}`)).id;
});
afterAll(async () => {
  await server.end();
  await rm(keyPath);
}, 60_000);

const text = (value: string) => new Redacted(value);
const create = (name: string, value = "value") => vault.create({ workspaceId, name, value: text(value) });
const readValue = async (idOrName: string) => (await vault.read(workspaceId, idOrName)).value.expose();

async function refused(code: SecretErrorCode, work: Promise<unknown>): Promise<SecretError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(SecretError);
  expect((error as SecretError).code).toBe(code);
  return error as SecretError;
}

test("keeps a secret and gives it back by id and by name, with what is known of it", async () => {
  const about = { registry: "ghcr.io", type: "basic", principal: "octocat" };
  const made = await vault.create({ workspaceId, name: "ghcr", value: text("päss\n{}"), ...about });
  expect(made).toMatchObject({ workspaceId, name: "ghcr", version: 1, ...about });
  expect(await vault.get(workspaceId, "ghcr")).toEqual(made);
  expect(await vault.list(workspaceId)).toEqual([made]);
  for (const key of [made.id, "ghcr"]) {
    const read = await vault.read(workspaceId, key);
    expect([read.value.expose(), read.version]).toEqual(["päss\n{}", 1]);
    expect(inspect(read, { depth: 5 }) + JSON.stringify(read)).not.toContain("päss");
  }
});

test("a new value is a new version, read at once; an equal one is none", async () => {
  await create("s", "one");
  expect((await vault.update(workspaceId, "s", text("one"))).changed).toBe(false);
  const { secret, changed } = await vault.update(workspaceId, "s", text("two"));
  expect([changed, secret.version]).toEqual([true, 2]);
  expect(secret.updatedAt.getTime()).toBeGreaterThanOrEqual(secret.createdAt.getTime());
  expect(await vault.read(workspaceId, "s")).toMatchObject({ version: 2 });
  expect(await readValue("s")).toBe("two");
  expect((await vault.update(workspaceId, "s", text("one"))).secret.version).toBe(3);
});

test("updates at the same time follow each other, and equal ones make one version", async () => {
  await create("s", "zero");
  const values = ["a", "b", "a", "b", "c", "c"];
  const written = await Promise.all(values.map((value) => vault.update(workspaceId, "s", text(value))));
  const made = written.filter((each) => each.changed).map((each) => each.secret.version);
  expect(made.sort()).toEqual(made.map((_, index) => index + 2));
  const same = await Promise.all([1, 2, 3, 4].map(() => vault.update(workspaceId, "s", text("last"))));
  expect(same.filter((each) => each.changed)).toHaveLength(1);
  expect(await readValue("s")).toBe("last");
});

test("keeps the last ten versions", async () => {
  const { id } = await create("s", "0");
  for (let index = 1; index <= 12; index += 1) await vault.update(workspaceId, "s", text(String(index)));
  const rows = await server.database.query((db) =>
    db
      .select({ version: secretVersions.version })
      .from(secretVersions)
      .where(eq(secretVersions.secretId, id)),
  );
  expect(rows.map((row) => row.version).sort((a, b) => a - b)).toEqual([4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
});

test("a workspace sees nothing of another's secrets", async () => {
  const mine = await create("s", "mine");
  const other = (await workspaceStore.ensure(`o-${crypto.randomUUID()}`)).id;
  expect(await vault.list(other)).toEqual([]);
  for (const key of ["s", mine.id]) await refused("not_found", vault.read(other, key));
  await refused("not_found", vault.get(other, "s"));
  await refused("not_found", vault.update(other, "s", text("x")));
  await refused("not_found", vault.remove(other, "s", { force: true }));
  await vault.create({ workspaceId: other, name: "s", value: text("theirs") });
  expect(await readValue("s")).toBe("mine");
});

test("finds the secret of a principal at a registry", async () => {
  const at = (name: string, registry: string, principal: string) =>
    vault.create({ workspaceId, name, value: text("v"), registry, principal });
  await at("a", "ghcr.io", "one");
  await at("b", "ghcr.io", "two");
  await at("c", "docker.io", "one");
  expect((await vault.findForPrincipal(workspaceId, "ghcr.io", "two"))?.name).toBe("b");
  expect(await vault.findForPrincipal(workspaceId, "quay.io", "two")).toBeUndefined();
});

test("refuses names that are none, and a name that is taken", async () => {
  const uuid = crypto.randomUUID();
  for (const name of ["", "A", "-a", ".a", "a/b", "a b", "a\n", "a\0", "ä", "a".repeat(256), uuid]) {
    await refused("bad_name", create(name));
  }
  for (const name of ["a", "0", "a.b-c_d", "a".repeat(255)]) await create(name);
  await refused("exists", create("a"));
  const race = await Promise.allSettled([create("race"), create("race"), create("race")]);
  expect(race.filter((each) => each.status === "fulfilled")).toHaveLength(1);
});

test("refuses values that are empty, too large or hold control characters, without showing them", async () => {
  const canary = "canary-40177";
  for (const value of ["", `${canary}\0`, `${canary}\u001b[0m`, `${canary}\ud800`]) {
    const error = await refused("bad_value", create("s", value));
    expect(inspect(error, { depth: 5 })).not.toContain(canary);
  }
  await refused("too_large", create("s", "é".repeat(32 * 1024 + 1)));
  await create("s", "é".repeat(32 * 1024));
});

test("a version moved to another row, workspace, name or number does not open", async () => {
  const { database } = server;
  const one = await create("one", "value one");
  const two = await create("two", "value two");
  const versionOf = async (id: string) =>
    (
      await database.query((db) => db.select().from(secretVersions).where(eq(secretVersions.secretId, id)))
    )[0];
  const put = (id: string, change: Partial<typeof secretVersions.$inferInsert>) =>
    database.query((db) => db.update(secretVersions).set(change).where(eq(secretVersions.secretId, id)));
  const [ofOne, ofTwo] = [await versionOf(one.id), await versionOf(two.id)];
  const { wrappedDataKey, nonce, ciphertext } = ofOne!;
  await put(two.id, { wrappedDataKey, nonce, ciphertext });
  await refused("undecryptable", vault.read(workspaceId, "two"));
  await put(two.id, { ...ofTwo!, ciphertext });
  await refused("undecryptable", vault.read(workspaceId, "two"));
  await put(two.id, ofTwo!);
  expect(await readValue("two")).toBe("value two");

  const changes = [{ name: "renamed" }, { workspaceId: (await workspaceStore.ensure("thief")).id }];
  for (const change of changes) {
    await database.query((db) => db.update(secrets).set(change).where(eq(secrets.id, one.id)));
    await refused("undecryptable", vault.read(change.workspaceId ?? workspaceId, one.id));
    await database.query((db) =>
      db.update(secrets).set({ name: "one", workspaceId }).where(eq(secrets.id, one.id)),
    );
  }
  // An old version in the current one's place: a rotation cannot be undone by who writes the database.
  await vault.update(workspaceId, "one", text("value new"));
  const ofNew = and(eq(secretVersions.secretId, one.id), eq(secretVersions.version, 2));
  await database.query((db) =>
    db.update(secretVersions).set({ wrappedDataKey, nonce, ciphertext }).where(ofNew),
  );
  await refused("undecryptable", vault.read(workspaceId, "one"));
  // What cannot be opened can still be replaced.
  expect((await vault.update(workspaceId, "one", text("value new"))).changed).toBe(true);
  expect(await readValue("one")).toBe("value new");
});

test("a workspace's key moved to another workspace opens nothing", async () => {
  await create("s");
  const thief = await workspaceStore.ensure(`t-${crypto.randomUUID()}`);
  const [mine] = await server.database.query((db) =>
    db.select().from(workspaces).where(eq(workspaces.id, workspaceId)),
  );
  await server.database.query((db) =>
    db.update(workspaces).set({ wrappedKey: mine!.wrappedKey }).where(eq(workspaces.id, thief.id)),
  );
  await refused("undecryptable", vault.create({ workspaceId: thief.id, name: "s", value: text("x") }));
});

test("another key file is named, and opens nothing", async () => {
  await create("s");
  const otherPath = `${keyPath}-other`;
  try {
    const kek = await KeyFile.open(otherPath, { create: true });
    const store = new SecretStore(server.database);
    const other = new Vault({ store, workspaces: new WorkspaceStore(server.database, singleKey(kek)) });
    const error = await refused("undecryptable", other.read(workspaceId, "s"));
    expect(error.message).toContain(`the key file holds ${kek.id}`);
  } finally {
    await rm(otherPath);
  }
});

test("a secret that images use is removed by force only, and the refusal names them", async () => {
  const secret = await create("s");
  const image = {
    id: `img-${crypto.randomUUID()}`,
    workspaceId,
    registry: "ghcr.io",
    repository: "o/r",
    reference: "ghcr.io/o/r:1",
    manifestDigest: "sha256:m",
    configDigest: "sha256:c",
    platform: "linux/amd64",
    credentialSecretName: "s",
    credentialSecretId: secret.id,
    sizeBytes: 1,
    inodes: 1,
    status: "ready",
  };
  await server.database.query((db) => db.insert(images).values(image));
  expect(await vault.imagesUsing(secret)).toEqual([image.id]);
  const error = await refused("in_use", vault.remove(workspaceId, "s"));
  expect(error.message).toContain(`${image.id} (ghcr.io/o/r:1)`);
  await vault.remove(workspaceId, "s", { force: true });
  await refused("not_found", vault.read(workspaceId, secret.id));
  await refused("not_found", vault.remove(workspaceId, "s"));
  const left = await server.database.query((db) =>
    db.select().from(secretVersions).where(eq(secretVersions.secretId, secret.id)),
  );
  expect(left).toEqual([]);
});

test("ensuring a workspace at the same time makes one, and refuses a bad name", async () => {
  const made = await Promise.all([1, 2, 3, 4].map(() => workspaceStore.ensure("together")));
  expect(new Set(made.map((each) => each.id)).size).toBe(1);
  expect((await workspaceStore.list()).map((each) => each.name)).toContain("together");
  for (const name of ["", "Ä", "a/b", "-", "x".repeat(64)])
    await refused("bad_name", workspaceStore.ensure(name));
});

test("no value and no key is in the files of the database, write-ahead log included", async () => {
  const canary = `canary-${crypto.randomUUID()}`;
  await create("canary", canary);
  await vault.update(workspaceId, "canary", text(`${canary}-2`));
  await readValue("canary");
  await server.database.query((db) => db.execute(sql`checkpoint`));
  const key = (await readFile(keyPath, "latin1")).split(" ")[1]?.trim() ?? "";
  const needles = [canary, Buffer.from(canary).toString("base64").slice(0, 40), key].map((each) =>
    Buffer.from(each),
  );
  needles.push(Buffer.from(key, "base64"), Buffer.from(Buffer.from(key, "base64").toString("hex")));
  let seenName = false;
  for (const entry of await readdir(server.dataPath, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const bytes = await readFile(join(entry.parentPath, entry.name));
    for (const needle of needles) expect(bytes.includes(needle)).toBe(false);
    seenName ||= bytes.includes(Buffer.from(workspaceId)) || bytes.includes("canary");
  }
  expect(seenName).toBe(true);
});
