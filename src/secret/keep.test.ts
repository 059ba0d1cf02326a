import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq } from "drizzle-orm";
import { secretNameCandidates } from "../credential/secret-name.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { secretVersions } from "../db/schema.ts";
import { Redacted } from "../std/redacted.ts";
import { KeyFile } from "./kek.ts";
import { singleKey } from "./keyring.ts";
import { SecretStore } from "./store.ts";
import { Vault } from "./vault.ts";
import { WorkspaceStore } from "./workspace-store.ts";

const keyPath = join(tmpdir(), `oci-node-keep-${process.pid}-${Date.now()}`);
let server: TestPostgres;
let vault: Vault;
let workspaces: WorkspaceStore;
let workspaceId: string;

beforeAll(async () => {
  server = await startTestPostgres();
  workspaces = new WorkspaceStore(server.database, singleKey(await KeyFile.open(keyPath, { create: true })));
  vault = new Vault({ store: new SecretStore(server.database), workspaces });
}, 60_000);
beforeEach(async () => {
  workspaceId = (await workspaces.ensure(`w-${crypto.randomUUID()}`)).id;
});
afterAll(async () => {
  await server.end();
  await rm(keyPath);
}, 60_000);

const registry = "a.b:5000";
const keep = (value: string, about: { registry?: string; principal?: string; proved?: boolean } = {}) => {
  const all = { registry, principal: "robot", proved: true, ...about };
  const names = secretNameCandidates(all.registry, all.principal);
  return vault.keep({ workspaceId, names, value: new Redacted(value), type: "basic", ...all });
};
const outcomeOf = async (value: string, proved = true) => {
  const { outcome, secret } = await keep(value, { proved });
  return [outcome, secret.version] as const;
};
const readValue = async (name: string) => (await vault.read(workspaceId, name)).value.expose();
const update = (name: string, value: string) => vault.update(workspaceId, name, new Redacted(value));

test("twenty builds of one account at once make one secret, and those of other accounts and hosts their own", async () => {
  const accounts = ["robot", "other", "default"].flatMap((principal) =>
    ["a.b:5000", "a-b:5000"].map((host) => ({ principal, registry: host })),
  );
  const builds = Array.from({ length: 20 }, () =>
    accounts.map((about) => keep(JSON.stringify(about), about)),
  );
  const kept = await Promise.all(builds.flat());
  expect(kept.filter(({ outcome }) => outcome === "created")).toHaveLength(accounts.length);
  expect(kept.filter(({ outcome }) => outcome === "unchanged")).toHaveLength(19 * accounts.length);
  const all = await vault.list(workspaceId);
  expect(all.map(({ version }) => version)).toEqual(accounts.map(() => 1));
  for (const { name, principal, registry: host } of all)
    expect(await readValue(name)).toBe(JSON.stringify({ principal, registry: host }));
});

test("a build with an older value does not undo a rotation, though the registry still takes it", async () => {
  const { secret } = await keep("first");
  await update(secret.name, "second");
  expect(await outcomeOf("first")).toEqual(["outdated", 2]);
  expect(await readValue(secret.name)).toBe("second");
  expect(await outcomeOf("third")).toEqual(["rotated", 3]);
  for (const stale of ["first", "second"]) expect(await outcomeOf(stale)).toEqual(["outdated", 3]);
  expect(await outcomeOf("third")).toEqual(["unchanged", 3]);
  expect(await outcomeOf("fourth", false)).toEqual(["unproved", 3]);
  // By hand anybody may go back.
  expect((await update(secret.name, "first")).secret.version).toBe(4);
  expect(await outcomeOf("third")).toEqual(["outdated", 4]);
});

test("of several secrets of an account a build takes the one that holds its value, and else rotates the latest", async () => {
  const named = (name: string, value: string) =>
    vault.create({
      workspaceId,
      name,
      value: new Redacted(value),
      registry,
      type: "basic",
      principal: "robot",
    });
  await named("one", "value one");
  await named("two", "value two");
  expect((await keep("value one")).secret.name).toBe("one");
  expect((await keep("value two")).secret.name).toBe("two");
  await update("one", "value one, rotated");
  expect(await keep("value one")).toMatchObject({ outcome: "outdated", secret: { name: "one" } });
  expect(await keep("value new")).toMatchObject({ outcome: "rotated", secret: { name: "one", version: 3 } });
  expect(await readValue("two")).toBe("value two");
});

test("thirty updates at once follow one another without a gap, and the last is what is read", async () => {
  const { secret } = await keep("value 0");
  const updates = await Promise.all(
    Array.from({ length: 30 }, (_, at) => update(secret.name, `value ${at + 1}`)),
  );
  const versions = updates.map(({ secret: { version } }) => version).toSorted((a, b) => a - b);
  expect(versions).toEqual(Array.from({ length: 30 }, (_, at) => at + 2));
  const last = updates.findIndex(({ secret: { version } }) => version === 31);
  expect(await vault.read(workspaceId, secret.name)).toMatchObject({ version: 31 });
  expect(await readValue(secret.name)).toBe(`value ${last + 1}`);
  const rows = await server.database.query((db) =>
    db.select().from(secretVersions).where(eq(secretVersions.secretId, secret.id)),
  );
  expect(rows.map(({ version }) => version).toSorted((a, b) => a - b)).toEqual([
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
  ]);
});

test("builds, updates and removals at once end with no secret or one that opens, and never with a gap", async () => {
  const { secret } = await keep("value");
  const work = Array.from({ length: 60 }, (_, at): Promise<unknown> => {
    if (at % 3 === 0) return keep(`value ${at}`);
    if (at % 3 === 1) return update(secret.name, `value ${at}`);
    return vault.remove(workspaceId, secret.name);
  });
  const failures = (await Promise.allSettled(work)).flatMap((each) =>
    each.status === "rejected" ? [(each.reason as { code?: string }).code] : [],
  );
  expect(failures.filter((code) => code !== "not_found")).toEqual([]);
  const left = await vault.list(workspaceId);
  expect(left.length).toBeLessThanOrEqual(1);
  for (const { name, version } of left)
    expect(await vault.read(workspaceId, name)).toMatchObject({ version });
  expect((await keep("value at last")).outcome).toBe(left.length === 0 ? "created" : "rotated");
});
