import { expect, test } from "bun:test";
import { logger } from "../std/log.ts";
import { doSteps, type Step } from "./steps.ts";

function recorded(
  names: readonly string[],
  failing: string | undefined,
  seen: string[],
  undoFails = "",
): Step[] {
  return names.map((name) => ({
    name,
    do: async () => {
      seen.push(name);
      if (name === failing) throw new Error(`${name} failed`);
    },
    undo: async () => {
      seen.push(`-${name}`);
      if (name === undoFails) throw new Error("undo failed");
    },
  }));
}

test("undoes the step that failed and those before it, last first", async () => {
  const seen: string[] = [];
  const steps = recorded(["a", "b", "c", "d"], "c", seen);
  const failure = await doSteps(steps, new AbortController().signal, logger("runtime")).catch(
    (error: unknown) => error,
  );
  expect(String(failure)).toContain("c failed");
  expect(seen).toEqual(["a", "b", "c", "-c", "-b", "-a"]);
});

test("stops between two steps when the signal fires", async () => {
  const seen: string[] = [];
  const controller = new AbortController();
  const steps = recorded(["a", "b", "c"], undefined, seen);
  const [a] = steps;
  const first: Step = { ...a!, do: async () => controller.abort(new Error("enough")) };
  const failure = await doSteps([first, ...steps.slice(1)], controller.signal, logger("runtime")).catch(
    String,
  );
  expect(failure).toBe("Error: enough");
  expect(seen).toEqual(["-b", "-a"]);
});

test("leaves what is below an undo that failed, and reports the first failure", async () => {
  const seen: string[] = [];
  const steps = recorded(["a", "b", "c"], "c", seen, "b");
  const failure = await doSteps(steps, new AbortController().signal, logger("runtime")).catch(String);
  expect(failure).toBe("Error: c failed");
  expect(seen).toEqual(["a", "b", "c", "-c", "-b"]);
});
