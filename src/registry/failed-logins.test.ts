import { describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { Redacted } from "../std/redacted.ts";
import { RegistryError } from "./error.ts";
import { FailedLogins, type Login, loginOf } from "./failed-logins.ts";

const where = { registry: "r.test", repository: "acme/app" };
const minute = 60_000;

function login(password: string, username = "alice", host = "r.test"): Login {
  const made = loginOf(host, { kind: "basic", username, password: new Redacted(password) });
  if (made === undefined) throw new Error("no login");
  return made;
}

function isHeld(logins: FailedLogins, which: Login, nowMs: number, at = where): boolean {
  try {
    logins.check(which, at, nowMs);
    return false;
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    return true;
  }
}

describe("a password that was refused three times", () => {
  test("is held back until the first time is ten minutes past", () => {
    const logins = new FailedLogins();
    for (const atMs of [0, 1 * minute, 2 * minute]) {
      expect(isHeld(logins, login("wrong"), atMs)).toBe(false);
      logins.refused(login("wrong"), atMs);
    }
    expect(isHeld(logins, login("wrong"), 3 * minute)).toBe(true);
    expect(isHeld(logins, login("wrong"), 10 * minute - 1)).toBe(true);
    expect(isHeld(logins, login("wrong"), 10 * minute)).toBe(false);
  });

  test("does not keep another password out, another name, or another host", () => {
    const logins = new FailedLogins();
    for (const atMs of [0, 1, 2]) logins.refused(login("wrong"), atMs);
    expect(isHeld(logins, login("other"), 3)).toBe(false);
    expect(isHeld(logins, login("wrong", "bob"), 3)).toBe(false);
    expect(isHeld(logins, login("wrong", "alice", "s.test"), 3)).toBe(false);
    logins.refused(login("other"), 3);
    expect(isHeld(logins, login("other"), 4)).toBe(true);
    expect(isHeld(logins, login("third"), 4)).toBe(false);
  });

  test("stays so when another password works, which clears all that was refused less often", () => {
    const logins = new FailedLogins();
    for (const atMs of [0, 1, 2]) logins.refused(login("wrong"), atMs);
    logins.refused(login("mistaken"), 3);
    logins.worked(login("right"));
    expect(isHeld(logins, login("wrong"), 4)).toBe(true);
    expect(isHeld(logins, login("mistaken"), 4)).toBe(false);
    expect(isHeld(logins, login("right"), 4)).toBe(false);
  });

  test("is forgotten when it works itself after all", () => {
    const logins = new FailedLogins();
    for (const atMs of [0, 1, 2]) logins.refused(login("right"), atMs);
    logins.worked(login("right"));
    for (const atMs of [3, 4]) logins.refused(login("right"), atMs);
    expect(isHeld(logins, login("right"), 5)).toBe(false);
  });

  test("is tried again each minute when it has worked before, but not where names are locked", () => {
    const logins = new FailedLogins();
    logins.worked(login("right"));
    for (const atMs of [0, 1, 2]) logins.refused(login("right"), atMs);
    expect(isHeld(logins, login("right"), 30_000)).toBe(true);
    expect(isHeld(logins, login("right"), 2 + minute)).toBe(false);
    logins.refused(login("right"), 2 + minute);
    const hub = { ...where, registry: "docker.io" };
    expect(isHeld(logins, login("right"), 2 + 2 * minute)).toBe(false);
    expect(isHeld(logins, login("right"), 2 + 2 * minute, hub)).toBe(true);
  });

  test("does not keep out, where names are locked, the one that worked: whoever knows the name could", () => {
    const hub = { ...where, registry: "docker.io" };
    const logins = new FailedLogins();
    logins.worked(login("right"));
    for (const guess of ["a", "b", "c", "d"]) logins.refused(login(guess), 0);
    expect(isHeld(logins, login("e"), 1, hub)).toBe(true);
    expect(isHeld(logins, login("right"), 1, hub)).toBe(false);
    logins.refused(login("right"), 1);
    expect(isHeld(logins, login("right"), 2, hub)).toBe(true);
  });

  test("and had worked before locks no name when many use it at once, and leaves a try for the next password", async () => {
    const hub = { ...where, registry: "docker.io" };
    const logins = new FailedLogins();
    logins.worked(login("until today"));
    let sent = 0;
    const one = (): Promise<unknown> => {
      const call = async (): Promise<never> => {
        sent += 1;
        await Promise.resolve();
        throw new RegistryError("unauthorized", "no", hub);
      };
      return logins.attempt(login("until today"), hub, () => sent, new AbortController().signal, call);
    };
    const ended = await Promise.allSettled(Array.from({ length: 20 }, one));
    expect(ended.every(({ status }) => status === "rejected")).toBe(true);
    expect(sent).toBe(3);
    expect(isHeld(logins, login("until today"), 5 * minute, hub)).toBe(true);
    expect(isHeld(logins, login("from today"), 4, hub)).toBe(false);
  });

  test("is told with the user name and the next time, and nothing of its value", () => {
    const logins = new FailedLogins();
    for (const atMs of [0, 1, 2]) logins.refused(login("hunter2"), atMs);
    const told = (): void => logins.check(login("hunter2"), where, 5 * minute);
    expect(told).toThrow("r.test refused alice 3 times within 10 minutes");
    expect(told).toThrow("not asked again before 1970-01-01T00:10:00Z (in 5 min)");
    expect(inspect([logins, login("hunter2")], { depth: 9, showHidden: true })).not.toContain("hunter2");
  });

  test("does not count what has failed for another reason", async () => {
    const logins = new FailedLogins();
    const away = new RegistryError("unreachable", "away", where);
    for (let round = 0; round < 5; round += 1) {
      const attempt = logins.attempt(
        login("right"),
        where,
        () => 0,
        new AbortController().signal,
        () => Promise.reject(away),
      );
      await expect(attempt).rejects.toBe(away);
    }
    expect(isHeld(logins, login("right"), 1)).toBe(false);
  });
});
