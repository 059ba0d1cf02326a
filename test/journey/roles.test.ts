import { expect, test } from "bun:test";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import { leftovers } from "../kit/leftovers.ts";
import { runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { writeRolesConfig } from "../kit/roles.ts";
import { credentialVariables, inScratch, refusal, withCredentials } from "../kit/world.ts";

test("roles in processes of their own: a container outlives a restart of gateway and scheduler", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  const reference = await push(await busyboxImage(), registry, "app:1");
  const command = await product();
  await inScratch(async (dir) => {
    const env = { XDG_CONFIG_HOME: join(dir, "xdg"), ...credentialVariables(registry) };
    const config = await writeRolesConfig(dir, registry, ["worker.cache_on_build = true"]);
    const start = (roles: string) =>
      new Program([...command, `--role=${roles}`, "--config", config], { env });
    const cli = async (...args: string[]) => (await runCli(command, args, { env })).stdout.trim();

    let control = start("gateway,scheduler");
    const worker = await control.waitFor(/^ready /m, 60_000).then(() => start("worker"));
    try {
      await worker.waitFor(/^ready worker$/m, 60_000);
      await cli("image", "build", reference, ...withCredentials);
      expect(await cli("run", reference)).toBe("hello from the image");
      // The gateway's build has filled the cache of the worker on its host.
      const [ran] = JSON.parse(await cli("ps", "--all", "--json"));
      const { transfer } = JSON.parse(await cli("inspect", ran.id));
      expect(transfer).toMatchObject({ complete: true, fetchedBytes: 0 });
      const id = await cli(
        "run",
        "-d",
        reference,
        "--",
        "sh",
        "-c",
        "echo up; trap 'exit 7' TERM; while :; do sleep 0.1; done",
      );
      const following = new Program([...command, "logs", "-f", id], { env });
      await following.waitFor(/^up$/m);
      await following.stop("SIGKILL");

      await control.stop();
      control = start("gateway,scheduler");
      await control.waitFor(/^ready /m, 60_000);
      await cli("stop", id);
      const ended = JSON.parse(await cli("inspect", id));
      expect([ended.state, ended.exitCode]).toEqual(["stopped", 7]);
    } finally {
      await worker.stop();
      await control.stop();
    }
    expect(await leftovers(dir)).toEqual([]);

    await rename(join(dir, "data/key"), join(dir, "key-aside"));
    const told = refusal(await runCli(command, ["--role=gateway", "--config", config], { env }));
    expect(told).toContain("data/key does not exist");
  });
}, 120_000);
