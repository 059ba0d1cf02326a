import { afterEach, describe, expect, test } from "bun:test";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { type Hub, startHub } from "./hub.test-kit.ts";

const signal = new AbortController().signal;
const amd64 = { os: "linux", architecture: "amd64" };
const hubs: Hub[] = [];
afterEach(async () => {
  for (const hub of hubs.splice(0)) await hub.stop();
});

async function hubOf(): Promise<Hub> {
  const hub = await startHub();
  hubs.push(hub);
  return hub;
}

const refusal = (work: Promise<unknown>): Promise<{ code?: string; message: string; next?: string }> =>
  work.then(
    () => ({ message: "" }),
    (error: unknown) => error as Error & { code?: string; next?: string },
  );

describe("Docker Hub", () => {
  test("is asked by HEAD, which it does not count, and by GET once for a manifest that it still has", async () => {
    const hub = await hubOf();
    for (const password of ["right", "right", undefined]) {
      const resolved = await hub.repository(password).resolve(amd64, signal);
      expect(resolved.manifest).toEqual(hub.image.manifest);
    }
    expect(hub.remaining).toBe(99);
    const manifests = hub.server.lines().filter((line) => line.includes("/manifests/"));
    expect(manifests.filter((line) => line.startsWith("GET"))).toEqual([
      `GET /v2/acme/app/manifests/${hub.image.manifest.digest}`,
    ]);
  });

  test("says how many pulls are left, in which window, and whose they are", async () => {
    const hub = await hubOf();
    const repository = hub.repository("right");
    expect(repository.pullLimit()).toBeUndefined();
    await repository.resolve(amd64, signal);
    expect(repository.pullLimit()).toEqual({
      registry: "docker.io",
      limit: 100,
      remaining: 99,
      windowSeconds: 21_600,
      countedBy: "account",
    });
  });

  test("is logged once when few pulls are left, with no more than numbers", async () => {
    const hub = await hubOf();
    hub.remaining = 12;
    const records: LogRecord[] = [];
    await configure({
      reset: true,
      sinks: { kept: (record) => void records.push(record) },
      loggers: [
        { category: ["oci-node"], lowestLevel: "info", sinks: ["kept"] },
        { category: ["logtape", "meta"], lowestLevel: "error", sinks: [] },
      ],
    });
    const repository = hub.repository("right");
    for (const remaining of [12, 10, 9, 8]) {
      hub.remaining = remaining;
      await repository.headManifest("1", signal);
    }
    await reset();
    expect(records.map(({ level, properties }) => ({ level, properties }))).toEqual([
      {
        level: "warning",
        properties: {
          registry: "docker.io",
          repository: "acme/app",
          limit: 100,
          remaining: 10,
          windowSeconds: 21_600,
          countedBy: "account",
        },
      },
    ]);
  });

  test("that gives no more pulls is told with its limit and its window", async () => {
    const hub = await hubOf();
    hub.remaining = 0;
    const error = await refusal(hub.repository("right").resolve(amd64, signal));
    expect(error.code).toBe("rate_limited");
    expect(error.next).toContain("plan sets the limit");
    expect(error.message).toContain("100 pulls in 6 h, counted by the account");
    expect(error.next).toContain("Try again at 2026-01-01T06:00:00Z at the latest, in 360 min");
    expect(hub.server.lines().filter((line) => line.startsWith("GET /v2/"))).toHaveLength(1);
  });

  test("never sees the fifth failed login, however often wrong builds are tried within ten minutes", async () => {
    const hub = await hubOf();
    const messages = new Set<string>();
    for (let build = 0; build < 60; build += 1) {
      const error = await refusal(hub.repository("wrong").resolve(amd64, signal));
      expect(error.code).toBe("unauthorized");
      messages.add(error.message);
      hub.clock.pass(9_000);
    }
    expect(hub.failedLogins()).toBe(3);
    expect(hub.isLocked()).toBe(false);
    expect([...messages].join("\n")).toMatch(
      /auth\.docker\.io refused alice 3 times .* before 2026-01-01T00:10:00Z/,
    );
  });

  test("sees no more of them when many begin at once", async () => {
    const hub = await hubOf();
    const all = Array.from({ length: 20 }, () => refusal(hub.repository("wrong").resolve(amd64, signal)));
    for (const error of await Promise.all(all)) expect(error.code).toBe("unauthorized");
    expect(hub.failedLogins()).toBe(3);
  });

  test("sees a corrected password at once, and the wrong one not again for all that", async () => {
    const hub = await hubOf();
    for (let build = 0; build < 5; build += 1) await refusal(hub.repository("wrong").resolve(amd64, signal));
    await hub.repository("right").resolve(amd64, signal);
    await refusal(hub.repository("wrong").resolve(amd64, signal));
    expect(hub.failedLogins()).toBe(3);
    await hub.repository("right").resolve(amd64, signal);
  });

  test("sees four different wrong passwords, and no fifth before the first is ten minutes past", async () => {
    const hub = await hubOf();
    for (const password of ["a", "b", "c", "d", "e", "f"])
      await refusal(hub.repository(password).resolve(amd64, signal));
    expect(hub.failedLogins()).toBe(4);
    hub.clock.pass(10 * 60_000);
    await refusal(hub.repository("g").resolve(amd64, signal));
    expect(hub.failedLogins()).toBe(5);
    expect(hub.isLocked()).toBe(false);
  });

  test("that takes no login at all is asked three times in a minute, however many wait", async () => {
    const hub = await hubOf();
    hub.lock();
    const repository = hub.repository("right");
    const all = Array.from({ length: 10 }, () => refusal(repository.headManifest("1", signal)));
    for (const error of await Promise.all(all)) {
      expect(error.code).toBe("rate_limited");
      expect(error.next).toContain("locked after failed logins");
    }
    expect(hub.server.lines().filter((line) => line === "GET /token")).toHaveLength(3);
  });
});
