import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq, sql } from "drizzle-orm";
import { makeConfig } from "../config.ts";
import { Database } from "../db/database.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { workspaces } from "../db/schema.ts";
import { clusterAuthorities, encryptionKeys, identityKeys } from "../db/schema-cluster.ts";
import type { SecretError } from "../secret/error.ts";
import { IdentityKeyStore } from "../secret/identity-key-store.ts";
import { IdentityKeys } from "../secret/identity-keys.ts";
import { KeyPresence } from "../secret/key-presence.ts";
import { ControlProcessStore } from "../secret/key-process-store.ts";
import { type RotationProgress, rotateKey } from "../secret/key-rotation.ts";
import { WrappedRowStore } from "../secret/key-rows-store.ts";
import { KeyStore, total } from "../secret/key-store.ts";
import { type Keyring, openUnder, sealUnder } from "../secret/keyring.ts";
import { LiveKeyring } from "../secret/keyring-live.ts";
import { SecretStore } from "../secret/store.ts";
import { Vault } from "../secret/vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { Redacted } from "../std/redacted.ts";
import { keySource } from "./keyring.ts";

const nobody = async (): Promise<Response> => {
  throw new Error("nobody is to be asked");
};
const issuers = { fetch: nobody, metadataFetch: nobody };

let server: TestPostgres;
let folder: string;
const open: { close(): Promise<void> }[] = [];

beforeAll(async () => {
  server = await startTestPostgres();
}, 60_000);
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "oci-node-rotation-"));
  await server.database.query((db) =>
    db.execute(
      sql`truncate ${workspaces}, ${identityKeys}, ${clusterAuthorities}, ${encryptionKeys} cascade`,
    ),
  );
});
afterAll(async () => {
  await server.end();
}, 60_000);

/** What a gateway has of keys and of what is under them, over connections of its own. */
async function startProcess(host: string, dataDir = folder) {
  const database = await Database.connect(server.url);
  const keys = new KeyStore(database);
  const ring = await LiveKeyring.open(
    keySource(makeConfig({ data_dir: dataDir }), { issuers, env: undefined }),
    keys,
  );
  const processes = new ControlProcessStore(database);
  const presence = await KeyPresence.start({
    store: processes,
    ring,
    roles: ["gateway"],
    dataDir: join(dataDir, host),
    host,
  });
  const store = new WorkspaceStore(database, ring);
  const running = {
    ring,
    keys,
    processes,
    rows: new WrappedRowStore(database),
    workspaces: store,
    vault: new Vault({ store: new SecretStore(database), workspaces: store }),
    /** As a process that signs for the first time. */
    sign: async () => await new IdentityKeys(new IdentityKeyStore(database), ring).signing(),
    async close() {
      await presence.close();
      await database.close();
    },
  };
  open.push(running);
  return running;
}

async function closeAll(): Promise<void> {
  for (const each of open.splice(0).reverse()) await each.close();
  await rm(folder, { recursive: true, force: true });
}

type Running = Awaited<ReturnType<typeof startProcess>>;

async function rotate(process: Running, to = "", patienceMs?: number): Promise<RotationProgress> {
  let last: RotationProgress | undefined;
  const dependencies = patienceMs === undefined ? process : { ...process, patienceMs };
  for await (const progress of rotateKey(dependencies, to, new AbortController().signal)) last = progress;
  return last as RotationProgress;
}

async function refusal(work: Promise<unknown>): Promise<SecretError> {
  return await work.then(
    () => {
      throw new Error("it was not refused");
    },
    (error: unknown) => error as SecretError,
  );
}

test("rotations by two processes under load fail no read and no write and leave no row behind", async () => {
  try {
    const [one, two] = [await startProcess("one"), await startProcess("two")];
    const ids: string[] = [];
    for (let index = 0; index < 60; index += 1) {
      const { id } = await one.workspaces.create(`w-${index}`);
      await one.vault.create({ workspaceId: id, name: "s", value: new Redacted(`${id} 0`) });
      ids.push(id);
    }
    const place = { kind: "cluster authority", id: "ca", part: "private key" };
    const { sealed, keyId } = await sealUnder(one.ring, place, Buffer.from("the authority's key"));
    const authority = { id: "ca", certificatePem: "", wrappedPrivateKey: sealed, keyId };
    await server.database.query((db) => db.insert(clusterAuthorities).values(authority));
    const { kid } = await one.sign();

    let done = false;
    const counts = { reads: 0, updates: 0, made: 0, signed: 0 };
    const failures: unknown[] = [];
    const loop = async (work: (turn: number) => Promise<void>) => {
      for (let turn = 0; !done; turn += 1) await work(turn).catch((error) => failures.push(error));
    };
    const pick = () => ids[Math.floor(Math.random() * ids.length)] as string;
    const load = [one, two].flatMap((process, which) => [
      loop(async () => {
        const id = pick();
        const { value } = await process.vault.read(id, "s");
        expect(value.expose()).toStartWith(`${id} `);
        counts.reads += 1;
      }),
      loop(async (turn) => {
        const id = pick();
        await process.vault.update(id, "s", new Redacted(`${id} ${which} ${turn}`));
        counts.updates += 1;
      }),
      loop(async (turn) => {
        const { id } = await process.workspaces.ensure(`m-${which}-${turn}`);
        await process.vault.create({ workspaceId: id, name: "s", value: new Redacted(`${id} 0`) });
        ids.push(id);
        counts.made += 1;
      }),
      loop(async () => {
        expect((await process.sign()).kid).toBe(kid);
        counts.signed += 1;
      }),
    ]);
    const primaries = new Set<string>();
    for (const process of [one, two, one, two]) {
      const { to, left, done: whole } = await rotate(process);
      expect([left, whole]).toEqual([0, true]);
      primaries.add(to);
      // What is made now is under the new key: nothing comes to be under an old one any more.
      expect([...(await process.keys.usage()).keys()]).toEqual([to]);
    }
    done = true;
    await Promise.all(load);
    expect(failures).toEqual([]);
    expect(primaries.size).toBe(4);
    for (const count of Object.values(counts)) expect(count).toBeGreaterThan(5);
    const [last] = [...(await two.keys.usage())];
    expect([last?.[0], total(last?.[1])]).toEqual([[...primaries].at(-1) as string, ids.length + 2]);
    const [moved] = await server.database.query((db) => db.select().from(clusterAuthorities));
    const wrapped = { sealed: moved?.wrappedPrivateKey as Uint8Array, keyId: moved?.keyId as string };
    expect(String(await openUnder(two.ring, place, wrapped))).toBe("the authority's key");
  } finally {
    await closeAll();
  }
}, 120_000);

test("a rotation that was broken off goes on where it ended, and what is under either key opens", async () => {
  try {
    const one = await startProcess("one");
    const ids: string[] = [];
    for (let index = 0; index < 250; index += 1) ids.push((await one.workspaces.create(`w-${index}`)).id);
    const abort = new AbortController();
    let to = "";
    const broken = (async () => {
      for await (const progress of rotateKey(one, "", abort.signal)) {
        to = progress.to;
        if (progress.rewrapped > 0) abort.abort();
      }
    })();
    expect((await refusal(broken)).name).toBe("AbortError");
    const left = await one.rows.countNotUnder(to);
    expect(left).toBeWithin(1, 250);
    for (const id of ids) (await one.workspaces.key(id)).fill(0);
    expect(await rotate(one, to)).toEqual({ to, rewrapped: left, left: 0, done: true });
    expect(await rotate(one, to)).toEqual({ to, rewrapped: 0, left: 0, done: true });
    for (const id of ids) (await one.workspaces.key(id)).fill(0);
  } finally {
    await closeAll();
  }
}, 60_000);

test("waits for every process that lives: one without the new key keeps it from becoming primary", async () => {
  const elsewhere = await mkdtemp(join(tmpdir(), "oci-node-rotation-"));
  try {
    const one = await startProcess("one");
    const before = await one.keys.primaryId();
    await one.workspaces.create("w");
    // The other host got a copy of the first key, and sees nothing of this host's folder.
    await Bun.write(join(elsewhere, "key"), Bun.file(join(folder, "key")));
    await chmod(join(elsewhere, "key"), 0o600);
    const far = await startProcess("far", elsewhere);
    const refused = await refusal(rotate(one, "", 300));
    expect([refused.code, refused.message]).toEqual([
      "key_missing",
      expect.stringMatching(
        /^far \(gateway\) cannot use the key [0-9a-f]{16}, so it did not become primary$/,
      ),
    ]);
    const [made = ""] = await readdir(join(folder, "keys"));
    expect(refused.next).toContain(`oci-node key rotate --to ${made}`);
    expect(await one.keys.primaryId()).toBe(before);
    // The key is brought there, and nobody has to be started again.
    await Bun.write(join(elsewhere, "keys", made), Bun.file(join(folder, "keys", made)));
    await chmod(join(elsewhere, "keys", made), 0o600);
    expect(await rotate(one, made)).toMatchObject({ to: made, left: 0, done: true });
    expect((await far.workspaces.ensure("x")).name).toBe("x");
    await one.keys.retire(before as string);
  } finally {
    await closeAll();
    await rm(elsewhere, { recursive: true, force: true });
  }
}, 60_000);

test("a process that ended cleanly, or was not heard of for two minutes, is not waited for", async () => {
  try {
    const [one, two] = [await startProcess("one"), await startProcess("two")];
    expect((await one.processes.live()).map(({ host }) => host)).toEqual(["one", "two"]);
    await two.close();
    open.pop();
    expect((await one.processes.live()).map(({ host }) => host)).toEqual(["one"]);
    // Killed, and started again in its place.
    const killed = { id: crypto.randomUUID(), host: "three", roles: ["gateway"], keyIds: [], version: "0" };
    await one.processes.beat(killed);
    await Bun.write(join(folder, "three/control-process-gateway"), `${killed.id}\n`);
    await startProcess("three");
    expect((await one.processes.live()).map(({ host }) => host)).toEqual(["one", "three"]);
    expect((await one.processes.live()).map(({ id }) => id)).not.toContain(killed.id);
    const gone = { id: crypto.randomUUID(), host: "gone", roles: ["gateway"], keyIds: [], version: "0" };
    await one.processes.beat(gone);
    expect((await refusal(rotate(one, "", 0))).message).toContain("gone (gateway)");
    await server.database.query((db) =>
      db.execute(sql`update control_processes set seen_at = now() - interval '121 s' where host = 'gone'`),
    );
    expect((await rotate(one)).done).toBe(true);
  } finally {
    await closeAll();
  }
}, 60_000);

test("rows that do not open are named once all others are done, and stay as they are", async () => {
  try {
    const one = await startProcess("one");
    for (const name of ["a", "b", "c"]) await one.workspaces.create(name);
    const { id } = await one.workspaces.ensure("b");
    await server.database.query((db) =>
      db
        .update(workspaces)
        .set({ wrappedKey: new Uint8Array(60) })
        .where(eq(workspaces.id, id)),
    );
    const refused = await refusal(rotate(one));
    expect(refused.code).toBe("undecryptable");
    expect(refused.message).toContain(`1 row is under another key still: workspace ${id} does not open`);
    const primary = (await one.keys.primaryId()) as string;
    expect(total((await one.keys.usage()).get(primary))).toBe(2);
  } finally {
    await closeAll();
  }
}, 60_000);

test("a key is retired only when nothing is under it and another one is primary", async () => {
  try {
    const one = await startProcess("one");
    const first = (await one.keys.primaryId()) as string;
    const { id } = await one.workspaces.create("w");
    expect((await refusal(one.keys.retire(first))).message).toContain("is primary");
    const [row] = await server.database.query((db) => db.select().from(workspaces));
    await rotate(one);
    // A row as it is when a backup of one table was put back.
    await server.database.query((db) =>
      db.update(workspaces).set({ wrappedKey: row?.wrappedKey as Uint8Array, keyId: first }),
    );
    expect((await refusal(one.keys.retire(first))).message).toBe(`1 row is under the key ${first}`);
    await rotate(one, (await one.keys.primaryId()) as string);
    await one.keys.retire(first);
    expect((await one.keys.list()).find((key) => key.id === first)?.retiredAt).toBeInstanceOf(Date);
    expect((await refusal(one.keys.retire("0123456789abcdef"))).code).toBe("not_found");
    (await one.workspaces.key(id)).fill(0);
    // It was retired, not lost: it may come back.
    expect((await rotate(one, first)).to).toBe(first);
    expect((await one.keys.list()).find((key) => key.id === first)?.retiredAt).toBeUndefined();
  } finally {
    await closeAll();
  }
}, 60_000);

test("what is written just as another key becomes primary is under that one", async () => {
  try {
    const one = await startProcess("one");
    const old = await one.ring.primary();
    const next = await one.ring.make();
    /** Gives the key that is primary, and then another one becomes it before anything is written. */
    const late = (): Keyring => {
      let isFirst = true;
      return {
        key: (id, what) => one.ring.key(id, what),
        async primary() {
          const key = await one.ring.primary();
          if (isFirst) await one.keys.makePrimary(next.key);
          isFirst = false;
          return key;
        },
      };
    };
    await new WorkspaceStore(server.database, late()).create("late");
    expect([...(await one.keys.usage()).keys()]).toEqual([next.key.id]);
    await one.keys.makePrimary(old);
    await new IdentityKeys(new IdentityKeyStore(server.database), late()).signing();
    const used = await server.database.query((db) => db.select().from(identityKeys));
    expect(used.map(({ keyId }) => keyId)).toEqual([next.key.id]);
  } finally {
    await closeAll();
  }
}, 60_000);

test("a row that changed since it was read is not overwritten", async () => {
  try {
    const one = await startProcess("one");
    const { id } = await one.workspaces.create("w");
    const [read] = await one.rows.notUnder("workspace", "", { after: undefined, limit: 1 });
    if (read === undefined) throw new Error("there is no row");
    const changed = new Uint8Array(60).fill(7);
    const put = (change: object) =>
      server.database.query((db) => db.update(workspaces).set(change).where(eq(workspaces.id, id)));
    for (const change of [{ wrappedKey: changed }, { wrappedKey: read.wrapped, keyId: "another" }]) {
      await put(change);
      expect(await one.rows.replace(read, { keyId: "x", wrapped: new Uint8Array(1) })).toBe(false);
    }
    const [row] = await server.database.query((db) => db.select().from(workspaces));
    expect([row?.keyId, Buffer.from(row?.wrappedKey ?? []).equals(read.wrapped)]).toEqual(["another", true]);
  } finally {
    await closeAll();
  }
}, 60_000);

test("of two rotations at once the first stops and says so", async () => {
  try {
    const one = await startProcess("one");
    await one.workspaces.create("w");
    const first = rotateKey(one, "", new AbortController().signal);
    await first.next();
    const { to } = await rotate(one);
    const refused = await refusal(first.next());
    expect([refused.code, refused.message]).toEqual([
      "conflict",
      expect.stringContaining(`${to} is primary`),
    ]);
    expect([...(await one.keys.usage()).keys()]).toEqual([to]);
  } finally {
    await closeAll();
  }
}, 60_000);

test("a process whose key file became loose meanwhile still counts, with the keys that it has", async () => {
  try {
    const { ring, processes } = await startProcess("one");
    await chmod(join(folder, "key"), 0o644);
    const about = { store: processes, ring, roles: ["scheduler"], dataDir: folder, host: "loose" };
    open.push(await KeyPresence.start(about));
    const [loose] = (await processes.live()).filter(({ host }) => host === "loose");
    expect(loose?.keyIds).toEqual([(await ring.primary()).id]);
  } finally {
    await closeAll();
  }
}, 60_000);
