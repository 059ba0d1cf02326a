import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { constants } from "node:os";
import { run } from "../std/spawn.ts";
import { Bench } from "./layer.test-kit.ts";
import { flock, ProcessHandle, waitForExit } from "./process.ts";

test("a lock is refused to a second holder until the first closes its file", () => {
  using bench = new Bench();
  const [first, second] = [openSync(bench.path("lock"), "w"), openSync(bench.path("lock"), "r")];
  flock(first, "exclusive");
  expect(() => flock(second, "shared")).toThrow("EAGAIN");
  closeSync(first);
  flock(second, "exclusive");
  closeSync(second);
});

test("waits for a process that is not a child", async () => {
  // The shell ends at once and leaves its child to another parent.
  const { stdout } = await run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"]);
  const pid = Number(stdout);
  const handle = ProcessHandle.open(pid);
  const exited = waitForExit(pid);
  handle.kill(constants.signals.SIGKILL);
  await exited;
  handle.close();
  handle.close();
});

test("a process that is not there has ended, and cannot be opened", async () => {
  const child = Bun.spawn(["true"]);
  await child.exited;
  await waitForExit(child.pid);
  expect(() => ProcessHandle.open(child.pid)).toThrow("ESRCH");
});

test("the thread that serves is preferred, and neither its threads nor its children are", async () => {
  const script = `import { preferThisThread, waitForExit } from ${JSON.stringify(import.meta.resolve("./process.ts"))};
    import { readdirSync, readFileSync } from "node:fs";
    preferThisThread();
    const child = Bun.spawn(["nice"], { stdout: "pipe" });
    await waitForExit(child.pid);
    const nicenessOf = (task) =>
      readFileSync("/proc/self/task/" + task + "/stat", "utf8").replace(/^.*\\) /, "").split(" ")[16];
    const others = readdirSync("/proc/self/task").filter((task) => Number(task) !== process.pid);
    const printed = (await new Response(child.stdout).text()).trim();
    console.log(nicenessOf(process.pid), printed, [...new Set(others.map(nicenessOf))].join());`;
  expect((await run([process.execPath, "-e", script])).stdout.trim()).toBe("-10 0 0");
});
