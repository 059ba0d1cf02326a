import { expect, test } from "bun:test";
import { join } from "node:path";
import { startTestPostgres } from "../../src/db/postgres.test-kit.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { says } from "../kit/inside.ts";
import { leftovers } from "../kit/leftovers.ts";
import { runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { writeRolesConfig } from "../kit/roles.ts";
import { type Container, credentialVariables, inScratch, withCredentials } from "../kit/world.ts";

const script = 'trap "" TERM INT; touch /tmp/up; echo up; while [ ! -e /tmp/go ]; do sleep 0.1; done';

test("a stop while the scheduler is away stops the container and says what is missing; runs whose worker is away, at a terminal or not, are left by a third Ctrl-C", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  const reference = await push(await busyboxImage(), registry, "team/app:1");
  const postgres = await startTestPostgres();
  const command = await product();
  await inScratch(async (dir) => {
    const env = { XDG_CONFIG_HOME: join(dir, "xdg"), ...credentialVariables(registry) };
    const config = await writeRolesConfig(dir, registry, [`database.url = "${postgres.url}"`]);
    const programs: Program[] = [];
    const start = async (role: string) => {
      const program = new Program([...command, `--role=${role}`, "--config", config], { env });
      programs.push(program);
      await program.waitFor(/^ready /m, 60_000);
      return program;
    };
    const cli = (...args: string[]) => runCli(command, args, { env });
    const inspect = async (id: string): Promise<Container> => JSON.parse((await cli("inspect", id)).stdout);
    try {
      await start("gateway");
      const scheduler = await start("scheduler");
      const worker = await start("worker");
      expect((await cli("image", "build", reference, "--index-only", ...withCredentials)).code).toBe(0);
      const id = (await cli("run", "-d", reference, "--", "sh", "-c", script)).stdout.trim();
      while (!(await says(id, "up")));
      await scheduler.stop("SIGKILL");
      const stopped = await cli("stop", "--timeout", "1", id);
      expect([stopped.code, stopped.stderr]).toEqual([1, expect.stringContaining("could not report that")]);
      expect(await says(id, "up")).toBe(false);
      const back = await start("scheduler");
      const givenUpAt = performance.now() + 60_000;
      for (let now = await inspect(id); now.state !== "stopped"; now = await inspect(id)) {
        if (performance.now() > givenUpAt)
          throw new Error(
            `it is ${now.state} still\n${worker.output.slice(-4_000)}\n${back.output.slice(-4_000)}`,
          );
      }

      const run = new Program([...command, "run", reference, "--", "sh", "-c", script], { env });
      await run.waitFor(/up\n/);
      const typing = [...command, "run", "-it", reference, "sh"].join(" ");
      const terminal = new Program(["script", "-qfec", typing, "/dev/null"], { env });
      programs.push(terminal);
      const type = (text: string) => {
        terminal.child.stdin.write(text);
        terminal.child.stdin.flush();
      };
      type("echo $((40+2))\n");
      await terminal.waitFor(/42/);
      await worker.stop("SIGKILL");
      // What is typed goes nowhere any more: the terminal is as it was, and so Ctrl-C is an interrupt.
      await terminal.waitFor(/Go on with it by `oci-node attach c-\w+`; Ctrl-C here stops it/);
      type("\x03");
      await terminal.waitFor(/stopping container/);
      type("\x03");
      await terminal.waitFor(/killing container/);
      type("\x03");
      await terminal.waitFor(/has not ended, and is left/);
      run.child.kill("SIGINT");
      await run.waitFor(/stopping container/);
      run.child.kill("SIGINT");
      await run.waitFor(/killing container/);
      expect(await run.stop("SIGINT")).toBe(130);
      expect(run.output).toMatch(/has not ended, and is left/);
      await start("worker");
      for (const left of JSON.parse((await cli("ps", "--json")).stdout) as Container[])
        expect((await cli("stop", "--timeout", "1", left.id)).code).toBe(0);
    } finally {
      for (const program of programs.reverse()) await program.stop();
      await postgres.end();
    }
    expect(await leftovers(dir)).toEqual([]);
  });
}, 120_000);
