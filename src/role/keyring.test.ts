import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { chmod, mkdtemp, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { type Config, makeConfig, readConfig, type Settings } from "../config.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { KeyFile } from "../secret/kek.ts";
import { KeyStore } from "../secret/key-store.ts";
import { singleKey } from "../secret/keyring.ts";
import { LiveKeyring } from "../secret/keyring-live.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import type { CodedError } from "../std/error.ts";
import { keySource } from "./keyring.ts";

const nobody = async (): Promise<Response> => {
  throw new Error("nobody is to be asked");
};
const issuers = { fetch: nobody, metadataFetch: nobody };
const arn = "arn:aws:kms:eu-west-1:111111111111:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const cloudKey = "projects/acme/locations/global/keyRings/oci/cryptoKeys/kek";

let server: TestPostgres;
let folder: string;
let made: string[];
beforeAll(async () => {
  server = await startTestPostgres();
}, 60_000);
beforeEach(async () => {
  made = [];
  folder = await mkdtemp(join(tmpdir(), "oci-node-keyring-"));
  await server.database.query((db) => db.execute(sql`truncate workspaces, encryption_keys cascade`));
});
afterEach(() => rm(folder, { recursive: true, force: true }));
afterAll(() => server.end());

type Environment = Readonly<Record<string, string | undefined>>;

async function open(settings: Settings | Config = {}, env?: Environment): Promise<LiveKeyring> {
  const config = "keyFile" in settings ? settings : makeConfig({ data_dir: folder, ...settings });
  const onMade = (path: string) => made.push(path);
  return await LiveKeyring.open(keySource(config, { issuers, env, onMade }), new KeyStore(server.database));
}

async function refusal(work: Promise<unknown>): Promise<CodedError> {
  return await work.then(
    () => {
      throw new Error("it was not refused");
    },
    (error: unknown) => error as CodedError,
  );
}

const workspacesOf = (ring: LiveKeyring) => new WorkspaceStore(server.database, ring);

test("the first start makes the key file and says so; the next one finds it", async () => {
  const first = await open();
  expect(made).toEqual([join(folder, "key")]);
  expect((await stat(join(folder, "key"))).mode & 0o777).toBe(0o600);
  const { id } = await workspacesOf(first).create("w");
  const next = await open();
  expect(made).toHaveLength(1);
  expect((await next.primary()).id).toBe((await first.primary()).id);
  (await workspacesOf(next).key(id)).fill(0);
});

test("what a version of one key file encrypted is found with it", async () => {
  const key = await KeyFile.open(join(folder, "key"), { create: true });
  const { id } = await new WorkspaceStore(server.database, singleKey(key)).create("old");
  const ring = await open();
  expect((await ring.primary()).id).toBe(key.id);
  (await workspacesOf(ring).key(id)).fill(0);
});

test("no start makes a new key where something is encrypted: it names the file that is not there", async () => {
  await workspacesOf(await open()).create("w");
  for (const forget of [async () => {}, () => new KeyStoreTable().clear()]) {
    await forget();
    await rename(join(folder, "key"), join(folder, "aside"));
    const error = await refusal(open());
    expect(error.code).toBe("key_missing");
    expect(error.message).toMatch(/^what is stored is under the key [0-9a-f]{16}, which this host lacks$/);
    expect(error.next).toContain(`The key file ${join(folder, "key")} does not exist.`);
    expect(error.next).toContain("oci-node key import FILE");
    expect(await readdir(folder)).toEqual(["aside"]);
    await rename(join(folder, "aside"), join(folder, "key"));
  }
  await open();
});

/** As a database of before there were names for keys. */
class KeyStoreTable {
  async clear(): Promise<void> {
    await server.database.query((db) => db.execute(sql`truncate encryption_keys`));
  }
}

test("a key that came since the last look is found, without a new start", async () => {
  const here = await open();
  const { id } = await workspacesOf(here).create("w");
  const { key, place } = await here.make();
  const elsewhere = await open();
  await rename(place, join(folder, "aside"));
  await elsewhere.reload();
  await new KeyStore(server.database).makePrimary(key);
  const error = await refusal(elsewhere.primary());
  expect([error.code, error.message]).toEqual(["key_missing", `this host lacks the primary key ${key.id}`]);
  expect((await refusal(elsewhere.key(key.id, "the secrets of workspace w"))).message).toBe(
    `the secrets of workspace w are under the key ${key.id}, which this host lacks`,
  );
  await rename(join(folder, "aside"), place);
  expect((await elsewhere.primary()).id).toBe(key.id);
  (await workspacesOf(elsewhere).key(id)).fill(0);
});

test("a key that is added to the configuration's file is known without a new start", async () => {
  const path = join(folder, "config.toml");
  const extra = (await KeyFile.open(join(folder, "extra"), { create: true })).id;
  await writeFile(path, `data_dir = "${folder}"\n`);
  const ring = await open(readConfig(path));
  expect(await ring.find("more")).toBeUndefined();
  await writeFile(path, `data_dir = "${folder}"\n[keys.more]\ntype = "file"\npath = "${folder}/extra"\n`);
  expect((await ring.find("more"))?.key.id).toBe(extra);
  // What breaks in it meanwhile breaks nothing here.
  await writeFile(path, "data_dir = \n");
  await ring.reload();
  expect((await ring.find("more"))?.key.id).toBe(extra);
});

test("keys beside the first are taken only as strictly as that one, and only under their own name", async () => {
  const ring = await open();
  const { key, place } = await ring.make();
  const held = async () => {
    await ring.reload();
    return ring.has(key.id);
  };
  expect(await held()).toBe(true);
  await chmod(place, 0o640);
  expect(await held()).toBe(false);
  await chmod(place, 0o600);
  await rename(place, join(folder, "aside"));
  await symlink(join(folder, "aside"), place);
  expect(await held()).toBe(false);
  await rm(place);
  await rename(join(folder, "aside"), join(folder, "keys", "0123456789abcdef"));
  expect(await held()).toBe(false);
  await rename(join(folder, "keys", "0123456789abcdef"), place);
  expect(await held()).toBe(true);
  // The first one is no matter of choice.
  await chmod(join(folder, "key"), 0o644);
  expect((await refusal(open())).message).toContain("can be read by others");
});

test("keys in files, variables and services stand beside each other, and first_key is the one to begin with", async () => {
  const variable = Buffer.alloc(32, 7).toString("base64");
  const settings: Settings = {
    first_key: "begin",
    keys: {
      begin: { type: "file", path: join(folder, "begin") },
      dev: { type: "env", variable: "KEY" },
      aws: { type: "aws-kms", key: arn, identity: "machine" },
      google: { type: "gcp-kms", key: cloudKey, identity: "vm" },
    },
    identities: {
      machine: { type: "aws", source: "instance" },
      vm: { type: "gcp", source: "metadata" },
    },
  };
  const ring = await open(settings, { KEY: variable });
  expect(made).toEqual([join(folder, "begin")]);
  expect(await readdir(folder)).toEqual(["begin"]);
  expect((await ring.primary()).id).toBe((await KeyFile.open(join(folder, "begin"))).id);
  const ids = ring.held.map(({ key }) => key.id);
  expect(ids).toContain(`aws-kms:${arn}`);
  expect(ids).toContain(`gcp-kms:${cloudKey}`);
  const listed = await new KeyStore(server.database).list();
  expect(listed.map(({ kind }) => kind).sort()).toEqual(["aws-kms", "env", "file", "gcp-kms"]);
  expect(JSON.stringify(listed)).not.toContain(variable);
});

test("refuses a key in a variable outside of dev, a variable that holds none, and an identity of another cloud", async () => {
  const env: Settings = { keys: { k: { type: "env", variable: "KEY" } } };
  expect((await refusal(open(env))).message).toBe("keys.k: a key in a variable is for `oci-node dev` only");
  for (const [value, what] of [
    [undefined, "is not set"],
    ["planted", "does not hold 32 bytes in base64"],
    [Buffer.alloc(31).toString("base64"), "does not hold 32 bytes in base64"],
  ]) {
    const error = await refusal(open(env, { KEY: value }));
    expect([error.code, error.message]).toEqual(["key_file", `the variable KEY ${what}`]);
  }
  const identities: Settings["identities"] = { vm: { type: "gcp", source: "metadata" } };
  for (const identity of ["vm", "nobody"]) {
    const keys: Settings["keys"] = { k: { type: "aws-kms", key: arn, identity } };
    expect((await refusal(open({ keys, identities }))).message).toBe(
      `keys.k.identity: ${identity} is no identity of type aws`,
    );
  }
});

test.each([
  ["aws-kms", "arn:aws:kms:eu-west-1:111111111111:alias/kek"],
  ["aws-kms", "1234abcd-12ab-34cd-56ef-1234567890ab"],
  ["gcp-kms", "projects/../locations/global/keyRings/oci/cryptoKeys/kek"],
  ["gcp-kms", "projects/acme/locations/global/keyRings/oci/cryptoKeys/kek?x"],
  ["gcp-kms", `${cloudKey}/cryptoKeyVersions/1`],
] as const)("refuses %s %s as a key", (type, key) => {
  const settings: Settings = { keys: { k: { type, key, identity: "i" } } };
  expect(() => makeConfig(settings)).toThrow("keys.k.key");
});
