import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { type ScriptedRegistry, startScriptedRegistry } from "../registry/scripted-registry.test-kit.ts";
import type { SecretMetadata } from "../secret/vault.ts";
import { HealthWorld, hourMs } from "./monitor.test-kit.ts";

let hub: ScriptedRegistry;
let acme: ScriptedRegistry;
let world: HealthWorld;

beforeAll(async () => {
  hub = await startScriptedRegistry("docker.io");
  acme = await startScriptedRegistry();
  world = await HealthWorld.start(hub, acme);
}, 60_000);
beforeEach(() => {
  for (const registry of [hub, acme]) {
    Object.assign(registry, { auth: "jwt", password: "right", trouble: undefined, actions: ["pull"] });
    registry.logins.length = 0;
  }
});
afterEach(async () => {
  await world.postgres.database.query((db) => db.execute(sql`delete from images`));
  await world.postgres.database.query((db) => db.execute(sql`delete from secrets`));
  world.transitions.length = 0;
});
afterAll(async () => {
  await world.end();
  await hub.stop();
  await acme.stop();
}, 60_000);

const wrongLogins = (registry: ScriptedRegistry): number =>
  registry.logins.filter(({ wrong }) => wrong).length;

/** Looks at what is due every half hour, as so many schedulers would at any time. */
async function live(hours: number, schedulers = 1): Promise<void> {
  const loops = Array.from({ length: schedulers }, () => world.loop());
  for (let half = 0; half < hours * 2; half += 1) {
    await Promise.all(loops.map((loop) => loop.round()));
    world.pass(hourMs / 2);
  }
}

describe("over 200 hours", () => {
  test("a revoked credential is refused three times at a registry that locks names, also with three schedulers", async () => {
    const secret = await world.secret("docker.io", "right", "acme/app");
    await live(10, 3);
    expect(await world.health(secret)).toMatchObject({ state: "ok", rights: "pull" });
    hub.password = "another";
    await live(200, 3);
    expect(wrongLogins(hub)).toBe(3);
    const health = await world.health(secret);
    expect(health).toMatchObject({ state: "failing", code: "unauthorized", failures: 3 });
    expect(health.nextCheckAt).toBeUndefined();

    // By hand, and after an update, it is asked again; what runs see in vain asks nothing.
    for (let read = 0; read < 50; read += 1) await world.monitor().seen(secret.id, "refused");
    await world.monitor().seen(secret.id, "proved");
    await live(1);
    expect(wrongLogins(hub)).toBe(3);
    await world.check(secret);
    expect(wrongLogins(hub)).toBe(4);
    await world.update(secret, "another");
    await world.check(secret);
    expect(await world.health(secret)).toMatchObject({ state: "ok", version: 2, failures: 0 });
    expect(wrongLogins(hub)).toBe(4);
  }, 120_000);

  test("elsewhere it backs off to once a day, and is well again by itself", async () => {
    const secret = await world.secret(acme.registry, "right", "acme/app");
    acme.password = "another";
    await live(200);
    expect(wrongLogins(acme)).toBeGreaterThan(8);
    expect(wrongLogins(acme)).toBeLessThan(20);
    acme.password = "right";
    await live(30);
    expect((await world.health(secret)).state).toBe("ok");
    expect(world.transitions.map(({ to }) => to.state)).toEqual(["failing", "ok"]);
  }, 120_000);
});

describe("the work", () => {
  test("is shared: each of many secrets is checked once by three schedulers", async () => {
    const secrets = await Promise.all(
      Array.from({ length: 12 }, () => world.secret(acme.registry, "right", "acme/app")),
    );
    await world.store.adopt(world.now());
    world.pass(hourMs);
    await Promise.all([world.loop(), world.loop(), world.loop()].map((loop) => loop.round()));
    const pulls = acme.logins.filter(({ scopes }) => scopes[0] === "repository:acme/app:pull");
    expect(pulls).toHaveLength(secrets.length);
    for (const secret of secrets) expect((await world.health(secret)).state).toBe("ok");
  }, 60_000);

  test("of many secrets that nobody knows yet is spread over an hour", async () => {
    await Promise.all(Array.from({ length: 60 }, () => world.secret(acme.registry, "right")));
    expect(await world.store.adopt(world.now())).toBe(60);
    expect(await world.store.adopt(world.now())).toBe(0);
    const [row] = await world.postgres.database.query((db) =>
      db.execute<{ spread: number }>(sql`
        select extract(epoch from max(next_check_at) - min(next_check_at))::float8 as spread from secret_health`),
    );
    expect(row?.spread).toBeGreaterThan(20);
    expect(row?.spread).toBeLessThanOrEqual(60);
  });

  describe("of a workspace with many secrets that are due", () => {
    let other: string;
    let late: SecretMetadata;
    beforeEach(async () => {
      other = (await world.workspaces.ensure("other")).id;
      for (let made = 0; made < 4; made += 1) await world.secret(acme.registry, "right");
      await world.store.adopt(world.now());
      world.pass(hourMs);
      late = await world.secret(acme.registry, "right", undefined, other);
      await world.store.adopt(world.now());
      world.pass(hourMs);
    });
    const claim = (holder: string, served: string[] = []) =>
      world.store.claim({ now: world.now(), holder, leaseMs: 120_000, busy: [], served });

    test("leaves another's their turn while some are under way, which may hang", async () => {
      expect((await claim("a"))?.workspaceId).toBe(world.workspaceId);
      expect((await claim("b"))?.secretId).toBe(late.id);
      expect((await claim("c"))?.workspaceId).toBe(world.workspaceId);
    });

    test("leaves another's their turn at the same registry", async () => {
      const asked: string[] = [];
      const check = async ({ secretId, workspaceId }: { secretId: string; workspaceId: string }) => {
        asked.push(workspaceId);
        await world.postgres.database.query((db) =>
          db.execute(
            sql`update secret_health set next_check_at = 'infinity', lease_until = null where secret_id = ${secretId}`,
          ),
        );
      };
      await world.loop({ now: () => world.now(), check } as never).round();
      expect(asked).toHaveLength(5);
      expect(asked.indexOf(other)).toBe(1);
    });
  });

  test("that a scheduler died over is taken up by another when its lease is over", async () => {
    const secret = await world.secret(acme.registry, "right", "acme/app");
    await world.store.adopt(world.now());
    world.pass(hourMs);
    const claim = { now: world.now(), holder: "dead", leaseMs: 120_000, busy: [] };
    expect(await world.store.claim(claim)).toMatchObject({ secretId: secret.id });
    await world.loop().round();
    expect(acme.logins).toEqual([]);
    world.pass(121_000);
    await world.loop().round();
    expect((await world.health(secret)).state).toBe("ok");
  });

  test("that is under way is given back when the scheduler ends", async () => {
    const secret = await world.secret(acme.registry, "right", "acme/app");
    await world.store.adopt(world.now());
    world.pass(hourMs);
    const begun = Promise.withResolvers<void>();
    const hangs = {
      now: () => world.now(),
      check: (_: unknown, signal: AbortSignal) => {
        begun.resolve();
        return new Promise<void>((_, reject) =>
          signal.addEventListener("abort", () => reject(signal.reason)),
        );
      },
    };
    const loop = world.loop(hangs);
    const round = loop.round();
    await begun.promise;
    await loop.close();
    await round;
    await world.loop().round();
    expect((await world.health(secret)).state).toBe("ok");
  });
});
