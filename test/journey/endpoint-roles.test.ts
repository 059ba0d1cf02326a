import { expect, test } from "bun:test";
import { join } from "node:path";
import { httpImage } from "../kit/http-image.ts";
import { leftovers } from "../kit/leftovers.ts";
import { runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { writeRolesConfig } from "../kit/roles.ts";
import { credentialVariables, inScratch, withCredentials } from "../kit/world.ts";

const ready = /^ready (\S+)$/m;

test("an endpoint's container behind a worker of its own serves on when worker and gateway are started anew", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  const reference = await push(await httpImage(), registry, "http:1");
  const command = await product();
  await inScratch(async (dir) => {
    const [second = 0, third = 0] = crypto.getRandomValues(new Uint8Array(2));
    const env = { XDG_CONFIG_HOME: join(dir, "xdg"), ...credentialVariables(registry) };
    const config = await writeRolesConfig(dir, registry, [
      `worker.network.subnet = "10.${64 + (second & 63)}.${third}.0/28"`,
    ]);
    const start = (roles: string) =>
      new Program([...command, `--role=${roles}`, "--config", config], { env });
    const cli = async (...args: string[]) => (await runCli(command, args, { env })).stdout.trim();
    const gatewayUrl = async (control: Program) => (await control.waitFor(ready, 60_000))[1] ?? "";

    let control = start("gateway,scheduler");
    let url = await gatewayUrl(control);
    let worker = start("worker");
    const begin = async (path: string, init: RequestInit = {}) => {
      const { token } = await Bun.file(join(dir, "xdg/oci-node/context.json")).json();
      const headers = { authorization: `Bearer ${token}` };
      return await fetch(`${url}/endpoint/web${path}`, { ...init, headers });
    };
    const call = async (path: string, init: RequestInit = {}) => {
      const response = await begin(path, init);
      return [response.status, await response.text()] as const;
    };
    try {
      await worker.waitFor(ready, 60_000);
      const image = await cli("image", "build", reference, ...withCredentials);
      await cli("endpoint", "deploy", "web", image, "--concurrency", "1", "--max", "1");
      const [status, greeting] = await call("");
      expect([status, greeting]).toEqual([200, expect.stringMatching(/^v1 c-/)]);
      const body = new Uint8Array(5 * 1024 * 1024);
      expect(await call("/count", { method: "POST", body })).toEqual([200, `${body.length}\n`]);
      expect(await Promise.all([call("/sleep/100"), call("")])).toEqual([
        [200, greeting],
        [200, greeting],
      ]);

      // One that leaves lets a request come to its end, and those that come meanwhile wait for the next process.
      const begun = await begin("/events/300");
      worker.child.kill("SIGUSR2");
      const meanwhile = call("");
      expect((await begun.text()).match(/^data:/gm)).toHaveLength(3);
      expect(await worker.child.exited).toBe(0);
      worker = start("worker");
      expect(await meanwhile).toEqual([200, greeting]);
      await worker.waitFor(ready, 60_000);

      await worker.stop("SIGKILL");
      worker = start("worker");
      await worker.waitFor(ready, 60_000);
      expect(await call("")).toEqual([200, greeting]);
      expect(await call("/count", { method: "POST", body })).toEqual([200, `${body.length}\n`]);

      await control.stop();
      control = start("gateway,scheduler");
      url = await gatewayUrl(control);
      expect(await call("")).toEqual([200, greeting]);
      await cli("endpoint", "rm", "web");
      expect((await call(""))[0]).toBe(404);
    } finally {
      await worker.stop();
      await control.stop();
    }
    expect(await leftovers(dir)).toEqual([]);
  });
}, 120_000);
