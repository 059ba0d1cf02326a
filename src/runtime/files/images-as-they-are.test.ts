import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { defaultOptions } from "../../container/options.ts";
import { run } from "../../std/spawn.ts";
import { imageConfig, TestHost } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import type { ContainerSpec } from "../spec.ts";

let host: TestHost;
let runtime: Runtime;
let images = 0;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  await host.close();
});

/** An image of nothing but one static program, and what `fill` puts beside it. */
async function image(
  config: Readonly<Record<string, unknown>>,
  fill: (root: string) => Promise<unknown> = async () => undefined,
): Promise<Partial<ContainerSpec>> {
  images += 1;
  const imageRoot = join(host.directory, `image-${images}`);
  await mkdir(imageRoot);
  await chmod(imageRoot, 0o755);
  await copyFile("/bin/busybox", join(imageRoot, "busybox"));
  await fill(imageRoot);
  return { imageRoot, imageConfig: imageConfig({ Env: [], ...config }) };
}

const sh = (script: string): string[] => ["/busybox", "sh", "-c", script];

const failureOf = (of: Partial<ContainerSpec>): Promise<unknown> =>
  runtime.start(host.spec([], of), new AbortController().signal).catch((error: unknown) => error);

async function outputOf(of: Partial<ContainerSpec>, command: readonly string[] = []): Promise<string> {
  const { output, errors } = await host.runToEnd(runtime, host.spec(command, of));
  expect(errors).toBe("");
  return output;
}

test("of one static program and no directory at all, root or not, to be written or not", async () => {
  const look =
    "/busybox pwd; /busybox id -u; /busybox cat /etc/hostname | /busybox wc -l; /busybox ls -d /proc/1 /dev/null /sys/kernel";
  const seen = (at: string, id: number): string => `${at}\n${id}\n1\n/dev/null\n/proc/1\n/sys/kernel\n`;
  expect(await outputOf(await image({ Cmd: sh(look) }))).toBe(seen("/", 0));
  expect(
    await outputOf(await image({ Entrypoint: sh(look), User: "70000:80000", WorkingDir: "srv/app" })),
  ).toBe(seen("/srv/app", 70_000));
  const readOnly = { options: { ...defaultOptions, readOnly: true } };
  expect(await outputOf({ ...(await image({ Cmd: sh(look), WorkingDir: "/w" })), ...readOnly })).toBe(
    seen("/w", 0),
  );
});

test("with Docker's rules for what is run, and words kept as they are", async () => {
  const argv = ["/busybox", "printf", "[%s]"];
  expect(await outputOf(await image({ Entrypoint: argv, Cmd: ["a b", "", "$X"] }))).toBe("[a b][][$X]");
  expect(await outputOf(await image({ Entrypoint: argv, Cmd: ["a"] }), ["c"])).toBe("[c]");
  const other = { options: { ...defaultOptions, entrypoint: argv } };
  expect(await outputOf({ ...(await image({ Entrypoint: ["/none"], Cmd: ["a"] })), ...other })).toBe("[]");
});

test("whose /etc is a link, whose resolv.conf leads to what is not there, and whose passwd is elsewhere", async () => {
  const linked = await image(
    {
      User: "eve",
      Cmd: sh(
        "/busybox id -u; /busybox cat /etc/resolv.conf; /busybox ls /run/systemd/resolve; /busybox cat /etc/hosts | /busybox head -n 1",
      ),
    },
    async (root) => {
      await mkdir(join(root, "usr/etc"), { recursive: true });
      await symlink("usr/etc", join(root, "etc"));
      await symlink("../../run/systemd/resolve/stub-resolv.conf", join(root, "usr/etc/resolv.conf"));
      await symlink("/usr/lib/passwd", join(root, "usr/etc/passwd"));
      await mkdir(join(root, "usr/lib"));
      await writeFile(join(root, "usr/lib/passwd"), "eve:x:4711:4712::/home/eve:\n");
    },
  );
  expect(await outputOf(linked)).toBe("4711\nstub-resolv.conf\n127.0.0.1\tlocalhost\n");
});

test("without a passwd: numbers work, names do not; with one that is no file, which a runtime would read without end, neither", async () => {
  const bare = await image({ User: "5:6", Cmd: sh("/busybox id -u; /busybox id -g") });
  expect(await outputOf(bare)).toBe("5\n6\n");
  expect(
    await failureOf({ ...bare, imageConfig: imageConfig({ User: "eve", Cmd: ["/busybox"] }) }),
  ).toMatchObject({
    code: "bad_user",
  });
  for (const [name, target] of [
    ["passwd", "/proc"],
    ["group", "/dev/zero"],
    ["group", "/fifo"],
  ] as const) {
    const odd = await image({ User: "5:6", Cmd: ["/busybox", "true"] }, async (root) => {
      for (const directory of ["etc", "dev", "proc"]) await mkdir(join(root, directory));
      await run(["mknod", join(root, "dev/zero"), "c", "1", "5"]);
      await run(["mkfifo", join(root, "fifo")]);
      await symlink(target, join(root, "etc", name));
    });
    expect(await failureOf(odd)).toMatchObject({
      code: "bad_config",
      message: `/etc/${name} in the image is no regular file`,
    });
  }
});

test("that would have the system's directories elsewhere are refused", async () => {
  for (const [name, target] of [
    ["proc", "/"],
    ["dev", "/elsewhere"],
  ] as const) {
    const astray = await image({ Cmd: ["/busybox", "true"] }, async (root) => {
      await mkdir(join(root, "elsewhere"));
      await symlink(target, join(root, name));
    });
    expect(await failureOf(astray)).toMatchObject({
      code: "create_failed",
      message: expect.stringContaining(`/${name}`),
    });
  }
});

test("with a stop signal by number, name or place among those of real time", async () => {
  for (const [StopSignal, number] of [
    ["SIGUSR1", 10],
    ["12", 12],
    ["RTMIN+3", 37],
  ] as const) {
    const script = `trap 'echo got ${number}; exit 3' ${number}; echo ready; while :; do /busybox sleep 0.01; done`;
    const spec = host.spec([], await image({ StopSignal, Cmd: sh(script) }));
    const container = await runtime.start(spec, new AbortController().signal);
    for await (const _ of runtime.logs(spec.id, { follow: true })) break;
    await container.stop(20_000);
    expect((await container.exited).exitCode).toBe(3);
    await container.cleanup();
    await container.removeLog();
  }
});
