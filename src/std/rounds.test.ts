import { expect, test } from "bun:test";
import { Rounds } from "./rounds.ts";

const never = 1_000_000;

/** Rounds whose ends are this test's to say. */
function held() {
  const ends: (() => void)[] = [];
  let running = 0;
  let most = 0;
  const begun: (() => void)[] = [];
  const rounds = new Rounds("test", never, async () => {
    running += 1;
    most = Math.max(most, running);
    begun.shift()?.();
    await new Promise<void>((resolve) => ends.push(resolve));
    running -= 1;
  });
  return { rounds, ends, most: () => most, next: () => new Promise<void>((resolve) => begun.push(resolve)) };
}

test("a round begins at once, and never two at a time: wakes during one make one more", async () => {
  const { rounds, ends, most, next } = held();
  const second = next();
  for (let wake = 0; wake < 5; wake += 1) rounds.wake();
  ends.shift()?.();
  await second;
  ends.shift()?.();
  await rounds.close();
  expect([most(), ends.length]).toEqual([1, 0]);
});

test("closing waits for the round that runs, and none begins afterwards", async () => {
  const { rounds, ends } = held();
  rounds.wake();
  let closed = false;
  const closing = rounds.close().then(() => (closed = true));
  await new Promise((resolve) => setImmediate(resolve));
  expect(closed).toBe(false);
  ends.shift()?.();
  await closing;
  rounds.wake();
  await new Promise((resolve) => setImmediate(resolve));
  expect(ends).toEqual([]);
});

test("a round that fails does not keep the next from coming", async () => {
  const rounds = await new Promise<Rounds>((resolve) => {
    let count = 0;
    const made: Rounds = new Rounds("test", never, async () => {
      count += 1;
      if (count === 2) return resolve(made);
      setImmediate(() => made.wake());
      throw new Error("once");
    });
  });
  await rounds.close();
});

test("a wake is not lost, whenever it comes", async () => {
  let count = 0;
  const rounds = new Rounds("test", never, async () => {
    count += 1;
  });
  for (let ticks = 0; ticks < 12; ticks += 1) {
    rounds.wake();
    for (let tick = 0; tick < ticks; tick += 1) await undefined;
    const before = count;
    rounds.wake();
    await new Promise((resolve) => setImmediate(resolve));
    expect(count).toBeGreaterThan(before);
  }
  await rounds.close();
});
