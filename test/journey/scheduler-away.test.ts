import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import { says, tell } from "../kit/inside.ts";
import { leftovers } from "../kit/leftovers.ts";
import { runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { writeRolesConfig } from "../kit/roles.ts";
import { type Container, credentialVariables, inScratch, withCredentials } from "../kit/world.ts";

/** Of tokens: the worker has the second half of that left when it finds nobody to ask. */
const lifeSeconds = 8;
const settings = ["background_fetch = false", "traces = false", 'read_deadline = "3s"'].map(
  (line) => `worker.${line}`,
);
/** Each far enough from the others that it is not there before it is read. */
const names = ["here", ...Array.from({ length: 30 }, (_, at) => `f${at}`)];

test("a scheduler that is away is not noticed for half of a token's life; then what is here is read, and all when it is back", async () => {
  await using registry = await TestRegistry.start({ auth: "bearer", tokenSeconds: lifeSeconds });
  const data = names.map((name, seed) => ({ path: `data/${name}`, data: noise(3, seed) })).reverse();
  const extra = [{ path: "data", type: "dir" as const }, ...data];
  const reference = await push(await busyboxImage({ extra }), registry, "team/app:1");
  const command = await product();
  await inScratch(async (dir) => {
    const env = { XDG_CONFIG_HOME: join(dir, "xdg"), ...credentialVariables(registry) };
    const config = await writeRolesConfig(dir, registry, settings);
    const start = (roles: string) =>
      new Program([...command, `--role=${roles}`, "--config", config], { env });
    const cli = async (...args: string[]) => (await runCli(command, args, { env })).stdout.trim();
    let control = start("gateway,scheduler");
    const worker = await control.waitFor(/^ready /m, 60_000).then(() => start("worker"));
    try {
      await worker.waitFor(/^ready worker$/m, 60_000);
      await cli("image", "build", reference, "--index-only", ...withCredentials);
      // Reads one file after the other until one fails; then one that is here; then that one until it does not fail.
      const script = `cat /data/here > /dev/null; touch /tmp/up
        while [ ! -e /tmp/go ]; do sleep 0.05; done
        at=0; while cat /data/f$at > /dev/null; do touch /tmp/read$at; at=$((at + 1)); sleep 1; done
        cat /data/here > /dev/null && touch /tmp/failed
        until cat /data/f$at > /dev/null; do sleep 0.2; done; echo $at; exit 7`;
      const id = await cli("run", "-d", reference, "--", "sh", "-c", script);
      await until(() => says(id, "up"));
      await tell(id, "go");
      await until(() => says(id, "read0"));
      const leftAt = performance.now();
      await control.stop();
      await until(() => says(id, "failed"));
      // Whatever the moment: half of a life was left.
      expect(performance.now() - leftAt).toBeGreaterThan((lifeSeconds / 2) * 1000);
      const refused = "the scheduler gives no credential for the image now";
      await worker.waitFor(new RegExp(`a read failed.*${refused}`));

      control = start("gateway,scheduler");
      await control.waitFor(/^ready /m, 60_000);
      const ended = async (): Promise<Container> => JSON.parse(await cli("inspect", id));
      await until(async () => !["running", "scheduled"].includes((await ended()).state));
      const { state, exitCode } = await ended();
      expect([state, exitCode]).toEqual(["exited", 7]);
      // What the worker could not report meanwhile it reports now, and it may be late.
      await until(async () => (await ended()).events.some(({ message }) => message.includes(refused)));
    } finally {
      await worker.stop();
      await control.stop();
    }
    expect(await leftovers(dir)).toEqual([]);
  });
}, 120_000);

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds()));
}

/** Mebibytes that do not compress, the same each time. */
function noise(mebibytes: number, seed: number): Buffer {
  const blocks = Array.from({ length: mebibytes * 32_768 }, (_, index) =>
    createHash("sha256").update(`${seed} ${index}`).digest(),
  );
  return Buffer.concat(blocks);
}
