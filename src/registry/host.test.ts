import { describe, expect, test } from "bun:test";
import { type Behaviour, HostScene, silence } from "./host.test-kit.ts";
import { Patience, type Probe } from "./place.ts";

const after =
  (endMs: number, then: Behaviour, before: Behaviour = silence): Behaviour =>
  (nowMs) =>
    (nowMs < endMs ? before : then)(nowMs);
const never: Probe = () => new Promise(() => undefined);
const quick: Behaviour = () => ({ afterMs: 10 });
const failing: Behaviour = () => ({ afterMs: 10, well: false });

describe("places at a host", () => {
  test("are so many, and go to whom somebody waits for, then in order", async () => {
    const scene = new HostScene({ connections: 2 });
    const order: string[] = [];
    const ask = (name: string, background: boolean): Promise<unknown> =>
      scene.ask({ background }).then(() => order.push(name));
    const all = [ask("a", true), ask("b", true), ask("c", true), ask("d", false), ask("e", false)];
    await scene.time.pass(100);
    await Promise.all(all);
    expect(order).toEqual(["a", "b", "d", "e", "c"]);
    expect(scene.mostAtOnce).toBe(2);
    expect(scene.host.idle).toBe(true);
  });

  test("are kept in part for what is brief, so that it waits for no body, but not without end", async () => {
    const { host } = new HostScene({ connections: 20 });
    const turn = { background: false, again: false, pauseMs: 0, patience: new Patience(), probe: never };
    const { signal } = new AbortController();
    const enter = (brief: boolean) => host.enter({ ...turn, brief }, signal);
    const bodies = await Promise.all(Array.from({ length: 16 }, () => enter(false)));
    const brief = await Promise.all(Array.from({ length: 4 }, () => enter(true)));
    const entered: string[] = [];
    const waiting = [false, true].map((one) => enter(one).then(() => entered.push(one ? "brief" : "body")));
    brief[0]?.leave(true);
    await waiting[1];
    expect(entered).toEqual(["brief"]);
    for (const place of [...brief.slice(1), ...bodies]) place.leave(true);
    await waiting[0];
    expect(entered).toEqual(["brief", "body"]);
  });

  test("are not kept for whom has left", async () => {
    const scene = new HostScene({ connections: 1 });
    const left = new AbortController();
    const first = scene.ask();
    const leaving = scene.ask({ signal: left.signal });
    left.abort(new Error("gone"));
    await expect(leaving).rejects.toThrow("gone");
    const last = scene.ask();
    await scene.time.pass(100);
    expect(await first).toBe(10);
    expect(await last).toBe(20);
  });
});

describe("a host that falls silent", () => {
  test.each([1_100, 1_900, 5_000, 20_000, 29_700])(
    "for %p ms is answered for all within a second of its return",
    async (endMs) => {
      const scene = new HostScene();
      scene.behaviour = after(endMs, quick);
      scene.probes = after(endMs, quick);
      const asked = Array.from({ length: 64 }, () => scene.ask());
      await scene.time.pass(endMs + 1_050);
      for (const one of asked) expect(await one).toBeLessThanOrEqual(endMs + 1_050);
      const before = [...scene.sent, ...scene.probed].filter((atMs) => atMs < endMs);
      expect(before.length).toBeLessThanOrEqual(16 + (2 * endMs) / 1000);
    },
  );

  test("is asked anew when a new reader comes, though all places are taken by what hangs", async () => {
    const scene = new HostScene({ connections: 2 });
    scene.behaviour = silence;
    scene.probes = silence;
    for (let count = 0; count < 4; count += 1) void scene.ask();
    await scene.time.pass(3_000);
    // What hung hangs on; what comes now is answered.
    scene.behaviour = quick;
    const fresh = scene.ask();
    await scene.time.pass(600);
    expect(await fresh).toBeLessThanOrEqual(3_600);
  });

  test("for some is not held against others", async () => {
    const scene = new HostScene();
    scene.behaviour = silence;
    void scene.ask();
    await scene.time.pass(5_000);
    scene.behaviour = quick;
    const first = scene.ask();
    await scene.time.pass(520);
    expect(await first).toBeLessThanOrEqual(5_520);
    const second = scene.ask();
    await scene.time.pass(20);
    expect(await second).toBeLessThanOrEqual(5_540);
  });
});

describe("a host that is slow", () => {
  const slow: Behaviour = () => ({ afterMs: 1_500 });

  test("in everything is waited for, and asked once", async () => {
    const scene = new HostScene();
    scene.behaviour = slow;
    scene.probes = slow;
    for (let count = 0; count < 5; count += 1) {
      const startMs = scene.time.now();
      const asked = scene.ask();
      await scene.time.pass(2_000);
      expect((await asked) - startMs).toBe(1_500);
    }
    expect(scene.sent).toHaveLength(5);
  });

  test("but answers what is light at once is waited for, when that is known of it", async () => {
    const scene = new HostScene();
    scene.behaviour = slow;
    for (let count = 0; count < 20; count += 1) {
      const asked = scene.ask();
      await scene.time.pass(6_000);
      await asked;
    }
    // At first it looks as if it had recovered from something.
    expect(scene.sent.length).toBeLessThan(30);
    expect(scene.sent.slice(-5).map((atMs) => atMs % 6_000)).toEqual([0, 0, 0, 0, 0]);
  });

  test("in an uneven way is answered in the end", async () => {
    const scene = new HostScene();
    let count = 0;
    scene.behaviour = () => ({ afterMs: (count++ % 4) * 1_200 });
    const asked = Array.from({ length: 32 }, () => scene.ask());
    await scene.time.pass(30_000);
    await Promise.all(asked);
    expect(scene.sent.length).toBeLessThan(32 * 3);
  });
});

describe("a host that fails", () => {
  test("is tried twice a second, and by all at once when it works again", async () => {
    const scene = new HostScene();
    scene.behaviour = after(30_000, quick, failing);
    const asked = Array.from({ length: 64 }, () => scene.ask());
    await scene.time.pass(30_000);
    expect(scene.sent.length).toBeLessThanOrEqual(20 + 2 * 30);
    await scene.time.pass(800);
    for (const one of asked) expect(await one).toBeLessThanOrEqual(30_800);
  });

  test("in one thing does not keep others from being asked", async () => {
    const scene = new HostScene();
    let bad = true;
    scene.behaviour = (nowMs) => (bad ? failing : quick)(nowMs);
    for (let count = 0; count < 4; count += 1) void scene.ask();
    await scene.time.pass(20);
    bad = false;
    const good = scene.ask();
    await scene.time.pass(20);
    expect(await good).toBe(30);
  });
});
