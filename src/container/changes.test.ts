import { expect, test } from "bun:test";
import { ContainerChanges } from "./changes.ts";

test("yields at once and once more for all changes that came meanwhile", async () => {
  const changes = new ContainerChanges();
  const stop = new AbortController();
  const iterator = changes.of("c-1", stop.signal);
  expect((await iterator.next()).done).toBe(false);
  changes.announce("c-1");
  changes.announce("c-1");
  changes.announce("c-2");
  expect((await iterator.next()).done).toBe(false);
  const waiting = iterator.next();
  changes.announce(undefined);
  expect((await waiting).done).toBe(false);
  const last = iterator.next();
  stop.abort();
  expect((await last).done).toBe(true);
});
