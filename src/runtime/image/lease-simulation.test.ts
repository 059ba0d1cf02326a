import { afterEach, describe, expect, test } from "bun:test";
import { seeded } from "../../credential/lease.test-kit.ts";
import { bytesOf, LeaseScene, type RegistryKind } from "./lease-scene.test-kit.ts";

const minuteMs = 60_000;
const dayMs = 24 * 60 * minuteMs;
const readBytes = 4096;
let scene: LeaseScene | undefined;
afterEach(async () => {
  await scene?.stop();
});

interface Day {
  readonly reads: number;
  readonly failed: readonly string[];
}

/** The scheduler goes away now and then, for less than half of a life, and comes back. */
function outages(of: LeaseScene, lifeMs: number, random: () => number): () => number {
  let count = 0;
  const back = () => {
    of.schedulerAway = false;
    of.clock.later(lifeMs * (0.2 + random()), away);
  };
  const away = () => {
    of.schedulerAway = true;
    count += 1;
    of.clock.later((lifeMs / 2) * (0.2 + 0.79 * random()), back);
  };
  of.clock.later(lifeMs * random(), away);
  return () => count;
}

/** A day of reads at random times, a minute apart in the mean, with now and then many at once. */
async function day(of: LeaseScene, random: () => number): Promise<Day> {
  const failed: string[] = [];
  let reads = 0;
  const read = async () => {
    reads += 1;
    const start = Math.floor(random() * 900_000);
    const got = await of.read(start, start + readBytes).catch((error: unknown) => String(error));
    if (typeof got === "string") failed.push(got);
    else if (!Buffer.from(got).equals(bytesOf(start, start + readBytes))) failed.push("other bytes");
  };
  while (of.clock.now() < dayMs) {
    await of.pass(-Math.log(1 - random()) * minuteMs);
    if (random() < 0.05) await Promise.all(Array.from({ length: 20 }, read));
    else await read();
  }
  return { reads, failed };
}

const lives: readonly (readonly [string, number, RegistryKind])[] = [
  ["12 hours, expired ones answered with 403", 12 * 60 * minuteMs, "basic 403"],
  ["60 minutes, expired ones answered with 401", 60 * minuteMs, "basic 401"],
  ["5 minutes, of a token service", 5 * minuteMs, "tokens"],
];

describe.each(lives)("a day of reads by authorizations of %s", (_, lifeMs, kind) => {
  test.each([
    ["with a scheduler that is there", false],
    ["with a scheduler that is away now and then, for less than half a life", true],
  ])("%s: no read fails, and few exchanges are made", async (__, withOutages) => {
    const random = seeded(lifeMs + (withOutages ? 1 : 0));
    scene = LeaseScene.start(kind, lifeMs, { random });
    await scene.read(0, readBytes);
    const away = withOutages ? outages(scene, lifeMs, random) : () => 0;
    const told = await day(scene, random);
    expect(told.failed).toEqual([]);
    expect(told.reads).toBeGreaterThan(1_400);
    expect(away()).toBeGreaterThanOrEqual(withOutages ? Math.floor(dayMs / lifeMs / 1.8) : 0);
    // One per half of a life, up to a twentieth of that early.
    expect(scene.exchanges).toBeLessThanOrEqual(Math.ceil(dayMs / ((lifeMs / 2) * 0.95)) + 1);
    expect(scene.exchanges).toBeGreaterThanOrEqual(Math.floor(dayMs / lifeMs));
    if (!withOutages) expect(scene.asks).toBeLessThanOrEqual(scene.exchanges + 1);
  });
});

describe("a thousand reads at once", () => {
  test.each(["tokens", "basic 401", "basic 403"] as const)(
    "after the end of what there was make one exchange (%s)",
    async (kind) => {
      scene = LeaseScene.start(kind, 5 * minuteMs, { keptUp: false });
      await scene.read(0, 10);
      const before = { exchanges: scene.exchanges, asks: scene.asks };
      await scene.pass(10 * minuteMs);
      await thousand(scene);
      expect(scene.exchanges - before.exchanges).toBe(1);
      expect(scene.asks - before.asks).toBe(1);
    },
  );

  test.each(["tokens", "basic 401", "basic 403"] as const)(
    "that the registry refuses before its time make one exchange (%s)",
    async (kind) => {
      scene = LeaseScene.start(kind, 60 * minuteMs, { keptUp: false });
      await scene.read(0, 10);
      await scene.pass(minuteMs);
      const before = { exchanges: scene.exchanges, asks: scene.asks };
      scene.revoke();
      await scene.clock.pass(10);
      await thousand(scene);
      expect(scene.exchanges - before.exchanges).toBe(1);
      expect(scene.asks - before.asks).toBe(1);
    },
  );
});

async function thousand(of: LeaseScene): Promise<void> {
  const reads = await Promise.all(Array.from({ length: 1000 }, (_, at) => of.read(at * 100, at * 100 + 50)));
  for (const [at, got] of reads.entries()) expect(got).toEqual(bytesOf(at * 100, at * 100 + 50));
}
