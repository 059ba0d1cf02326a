import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { unmarshalCredentials } from "../credential/marshal.ts";
import type { Database } from "../db/database.ts";
import { containers } from "../db/schema.ts";
import { type ScriptedRegistry, startScriptedRegistry } from "../registry/scripted-registry.test-kit.ts";
import { opaqueValue } from "../secret/opaque.ts";
import { MetricsStore } from "./metrics-store.ts";
import { HealthWorld, hourMs } from "./monitor.test-kit.ts";
import { ReportStore } from "./report-store.ts";
import { secretChecks } from "./secret-checks-service.ts";

let acme: ScriptedRegistry;
let world: HealthWorld;

beforeAll(async () => {
  acme = await startScriptedRegistry();
  world = await HealthWorld.start(acme);
}, 60_000);
afterEach(async () => {
  Object.assign(acme, { password: "right", actions: ["pull"] });
  for (const table of ["containers", "images", "secrets"])
    await world.postgres.database.query((db) => db.execute(sql`delete from ${sql.identifier(table)}`));
});
afterAll(async () => {
  await world.end();
  await acme.stop();
}, 60_000);

async function container(imageId: string, state: string, spec = {}): Promise<string> {
  const id = `c-${crypto.randomUUID()}`;
  const row = { id, workspaceId: world.workspaceId, imageId, reference: "r", state, spec };
  await world.postgres.database.query((db) => db.insert(containers).values(row));
  return id;
}

describe("a report", () => {
  test("names the images that use a secret and their containers that have not ended", async () => {
    const secret = await world.secret(acme.registry, "right");
    const other = await world.secret(acme.registry, "right", "acme/app");
    const images = [await world.image(secret, "acme/app"), await world.image(secret, "acme/app")].sort();
    const living = [
      await container(images[0] as string, "running"),
      await container(images[0] as string, "pending"),
    ].sort();
    for (const state of ["exited", "failed", "stopped"]) await container(images[1] as string, state);
    const [report] = await world.reports.reports(world.workspaceId, secret.name);
    expect(report).toMatchObject({ imageIds: images, containerIds: living });
    const all = await world.reports.reports(world.workspaceId);
    expect(all.map(({ name }) => name)).toEqual([secret.name, other.name].sort());
    await expect(world.vault.remove(world.workspaceId, secret.name)).rejects.toThrow(living[0]);
  });

  test("of a value for containers names those that are given it; nobody checks it, nor counts it", async () => {
    const { store, vault, reports, workspaceId } = world;
    const credential = await world.secret(acme.registry, "right");
    const imageId = await world.image(credential, "acme/app");
    const value = opaqueValue(Buffer.from("x"));
    const plain = await vault.create({ workspaceId, name: "db", value, type: "opaque", principal: "" });
    const given = { options: { secrets: [{ secretName: "db", variable: "DB" }] } };
    const living = await container(imageId, "running", given);
    await container(imageId, "exited", given);
    await container(imageId, "running");
    const [report] = await reports.reports(workspaceId, "db");
    expect(report).toMatchObject({ type: "opaque", health: undefined, imageIds: [], containerIds: [living] });
    await store.adopt(world.now());
    const known = sql`select secret_id from secret_health where secret_id = ${plain.id}`;
    expect(await world.postgres.database.query((db) => db.execute(known))).toHaveLength(0);
    const counted = await new MetricsStore(world.postgres.database).read(workspaceId);
    expect(counted.secrets.map(({ secret }) => secret)).toEqual([credential.name]);
  });

  test("gives the images of a secret that is gone to the one that has its name now", async () => {
    const gone = await world.secret(acme.registry, "right", "acme/app");
    await world.vault.remove(world.workspaceId, gone.name, { force: true });
    const about = {
      workspaceId: world.workspaceId,
      registry: acme.registry,
      type: "basic",
      principal: "alice",
    };
    const { value } = await world.vault.read(
      world.workspaceId,
      (await world.secret(acme.registry, "right")).id,
    );
    const heir = await world.vault.create({ ...about, name: gone.name, value });
    const [report] = await world.reports.reports(world.workspaceId, heir.name);
    expect(report?.imageIds).toHaveLength(1);
    await world.check(heir);
    expect(acme.lines().some((line) => line.startsWith("HEAD /v2/acme/app/"))).toBe(true);
  });

  test("says nothing of a version from what was known of the one before", async () => {
    const secret = await world.secret(acme.registry, "right");
    await world.check(secret);
    expect((await world.health(secret)).state).toBe("ok");
    await world.update(secret, "another");
    const [report] = await world.reports.reports(world.workspaceId, secret.name);
    expect(report).toMatchObject({ version: 2, health: undefined });
  });

  test("on ten thousand secrets takes two statements", async () => {
    await world.postgres.database.query((db) =>
      db.execute(sql`
        insert into secrets (id, workspace_id, name, registry, credential_type, principal, current_version)
        select gen_random_uuid(), ${world.workspaceId}, 'many-' || n, 'ghcr.io', 'basic', 'p' || n, 1
        from generate_series(1, 10000) n`),
    );
    let statements = 0;
    const counted = {
      query: (work: Parameters<Database["query"]>[0]) => {
        statements += 1;
        return world.postgres.database.query(work);
      },
    };
    const reports = new ReportStore(counted as Database);
    expect(await reports.reports(world.workspaceId)).toHaveLength(10_000);
    expect(statements).toBe(2);
  });
});

describe("what was checked", () => {
  test("of a version that is none any more is not written down, and the new one is due", async () => {
    const secret = await world.secret(acme.registry, "right");
    await world.check(secret);
    const to = await world.health(secret);
    await world.update(secret, "another");
    const checked = { ...to, declaredExpiry: undefined };
    expect(
      await world.store.record(checked, world.now(), () => ({ ...to, state: "failing" })),
    ).toBeUndefined();
    acme.password = "another";
    await world.loop().round();
    expect(await world.health(secret)).toMatchObject({ state: "ok", version: 2 });
  });

  test("earlier does not replace what was found later", async () => {
    const secret = await world.secret(acme.registry, "right");
    world.pass(hourMs);
    await world.check(secret);
    const to = await world.health(secret);
    const before = new Date(world.now().getTime() - 1000);
    const checked = { ...to, declaredExpiry: undefined };
    await world.store.record(checked, before, () => ({ ...to, state: "failing" }));
    expect((await world.health(secret)).state).toBe("ok");
  });
});

describe("what is seen of a secret", () => {
  test("makes it due at once when it is news, and again soon after the last check", async () => {
    const secret = await world.secret(acme.registry, "right", "acme/app");
    await world.check(secret);
    acme.password = "another";
    const due = Promise.withResolvers<void>();
    let connected = false;
    const subscription = await world.store.subscribeDue(() => {
      if (connected) due.resolve();
      connected = true;
    });
    await world.monitor().seen(secret.id, "refused");
    await due.promise;
    await subscription.end();
    await world.loop().round();
    expect((await world.health(secret)).state).toBe("ok");
    world.pass(5_000);
    await world.loop().round();
    expect((await world.health(secret)).state).toBe("failing");
    acme.password = "right";
    world.pass(700_000);
    await world.monitor().seen(secret.id, "proved");
    await world.loop().round();
    expect((await world.health(secret)).state).toBe("ok");
  });

  test("of what is failing already is no news", async () => {
    const secret = await world.secret(acme.registry, "wrong", "acme/app");
    await world.check(secret);
    world.pass(60_000);
    const { nextCheckAt } = await world.health(secret);
    await world.monitor().seen(secret.id, "refused");
    expect((await world.health(secret)).nextCheckAt).toEqual(nextCheckAt);
  });
});

describe("a credential that is to be kept", () => {
  const checks = () => secretChecks({ monitor: world.monitor(), store: world.store, reports: world.reports });

  test("is tried where the images are that use the secret", async () => {
    const secret = await world.secret(acme.registry, "right", "acme/app");
    const { value } = await world.vault.read(world.workspaceId, secret.id);
    const credential = unmarshalCredentials(value);
    const wanted = {
      workspaceId: world.workspaceId,
      credential,
      repository: undefined,
      secretName: secret.name,
    };
    const { signal } = new AbortController();
    const tried = await checks().tryNew(wanted, signal);
    await tried.kept(secret, { declaredExpiry: new Date(world.now().getTime() + 24 * hourMs) });
    expect(await world.health(secret)).toMatchObject({ state: "expiring", rights: "pull" });
    acme.actions = [];
    await expect(checks().tryNew(wanted, signal)).rejects.toMatchObject({ code: "refused" });
  });
});
