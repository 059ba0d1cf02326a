import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, chown, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run, tryRun } from "../../std/spawn.ts";
import { statePaths } from "../layout.ts";
import { imageConfig, TestHost } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import type { ContainerSpec } from "../spec.ts";
import { hostId, IdRanges, idExtents, userNamespaceProblem } from "./user-namespace.ts";

let host: TestHost;
let runtime: Runtime;
const signal = new AbortController().signal;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
  const at = (path: string): string => join(host.imageRoot, path);
  await mkdir(at("far"));
  await chown(at("far"), 100_000, 2_000_000_000);
  // busybox would give up what a setuid bit gives.
  await writeFile(at("who.c"), whoSource);
  for (const name of ["plain", "setuid", "capable"])
    await run(["gcc", "-static", "-Os", "-o", at(`bin/${name}`), at("who.c")]);
  await chmod(at("bin/setuid"), 0o6755);
  await run(["setcap", "cap_net_bind_service+ep", at("bin/capable")]);
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  await host.close();
});

const as = (user: string, script: string, more: Partial<ContainerSpec> = {}) =>
  host.runToEnd(
    runtime,
    host.spec(["sh", "-c", script], { imageConfig: imageConfig({ User: user }), ...more }),
  );

/** The numbers of users in the container's map, on the host's side. */
async function basesOf(pid: number): Promise<number[]> {
  const map = await readFile(`/proc/${pid}/uid_map`, "utf8");
  return map
    .trim()
    .split("\n")
    .map((line) => Number(line.trim().split(/\s+/)[1]));
}

/** Who it runs as, and with which capabilities. */
const whoSource = `#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void) {
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, status)) if (!strncmp(line, "CapEff:", 7)) printf("%d:%d %s", geteuid(), getegid(), line + 8);
}`;

test("a container's root is nobody on the host, and no other container's root either", async () => {
  const specs = [1, 2].map(() => host.spec(["sh", "-c", "touch /mine; echo made; exec sleep 1000"]));
  const containers = await Promise.all(specs.map((spec) => runtime.start(spec, signal)));
  try {
    const bases: number[] = [];
    for (const [number, container] of containers.entries()) {
      const spec = specs[number]!;
      for await (const _ of runtime.logs(spec.id, { follow: true })) break;
      const [base = 0] = await basesOf(container.pid);
      bases.push(base);
      expect((await stat(`/proc/${container.pid}`)).uid).toBe(base);
      expect((await stat(join(host.rootOf(spec.id), "mine"))).uid).toBe(base);
      // Who is in by exec is in the same namespace.
      const { runtimeRoot } = statePaths(host.stateDir);
      const inside = [
        "runc",
        "--root",
        runtimeRoot,
        "exec",
        spec.id,
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map",
      ];
      expect((await run(inside)).stdout).toMatch(new RegExp(`^0\\n +0 +${base} +65536\\n`));
      // The way to its files is closed to others of the host, also where they are open in the image.
      const file = join(host.rootOf(spec.id), "bin/busybox");
      const others = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", file];
      expect((await tryRun(others)).stderr).toContain("Permission denied");
    }
    expect(Math.min(...bases)).toBeGreaterThanOrEqual(0x4000_0000);
    expect(Math.abs(bases[0]! - bases[1]!)).toBeGreaterThanOrEqual(65_536);
  } finally {
    for (const container of containers) {
      await container.cleanup();
      await container.removeLog();
    }
  }
});

test("owners, setuid bits and capabilities of files mean in it what they mean in the image", async () => {
  const { output } = await as("ann", "stat -c '%u %g' /far /bin/busybox /etc/hosts; plain; setuid; capable");
  expect(output).toBe(
    `100000 2000000000\n0 0\n0 0\n${["1001:1002 0000000000000000", "0:0 00000000a80425fb", "1001:1002 0000000000000400"].join("\n")}\n`,
  );
});

test.each(["0", "ann", "70000:2147483647"])("runs as %p, who may do as everywhere", async (user) => {
  const { output, errors } = await as(
    user,
    "stat -c %u:%g /proc/self/; touch mine && stat -c '%u:%g' mine; echo out > /dev/stdout; echo err > /dev/stderr; : > /dev/null",
    { imageConfig: imageConfig({ User: user, WorkingDir: "/own" }) },
  );
  const [uid, gid] = user === "0" ? ["0", "0"] : user === "ann" ? ["1001", "1002"] : user.split(":");
  expect(output).toBe(`${uid}:${gid}\n${uid}:${gid}\nout\n`);
  expect(errors).toBe("err\n");
});

test("gives files away to whoever the image could name, and listens below 1024", async () => {
  const { output } = await as(
    "0",
    "touch x; chown 65536:2147483647 x; stat -c '%u:%g' x; (sleep 1000 | nc -l -p 80 >/dev/null) & cat /proc/sys/net/ipv4/ip_unprivileged_port_start; kill %1",
  );
  expect(output).toBe("65536:2147483647\n0\n");
});

test("there is none with the host's network, nor where the operator wants none", async () => {
  const off = await host.runtime({ userNamespaces: "off" });
  const script = ["sh", "-c", "cat /proc/self/uid_map"];
  const all = /^\s+0\s+0\s+4294967295\n$/;
  expect((await host.runToEnd(off, host.spec(script))).output).toMatch(all);
  expect((await host.runToEnd(runtime, host.spec(script, { network: "host" }))).output).toMatch(all);
});

test("a container keeps its range when its worker is another process", async () => {
  const spec = host.spec(["sleep", "1000"]);
  const first = await runtime.start(spec, signal);
  const [base] = await basesOf(first.pid);
  const state = JSON.parse(
    await readFile(join(host.stateDir, "containers", spec.id, "state.json"), "utf8"),
  ) as object;
  expect(state).toMatchObject({ idBase: base });
  const next = await host.runtime();
  const [adopted] = await next.adopt();
  await adopted?.cleanup();
  await adopted?.removeLog();
});

describe("ids", () => {
  test("are one-to-one, and never the host's own", () => {
    const base = 0x4000_0000;
    const ids = idExtents(base);
    const seen = [0, 65_535, 65_536, 2 ** 31 - 1].map((id) => hostId(ids, id));
    expect(seen).toEqual([base, base + 65_535, 2 ** 31, 2 ** 32 - 65_537]);
    expect(hostId(undefined, 7)).toBe(7);
    expect(() => hostId(ids, 2 ** 31)).toThrow("has no number here");
  });

  test("are no two containers'", () => {
    const ranges = new IdRanges();
    const bases = Array.from({ length: 2000 }, (_, number) => ranges.take(`c-${number}`));
    expect(new Set(bases).size).toBe(2000);
    for (const base of bases) expect((base - 0x4000_0000) % 65_536).toBe(0);
    expect(Math.max(...bases)).toBeLessThan(2 ** 31);
  });
});

test("says why there are none where a file system cannot map owners", async () => {
  expect(await userNamespaceProblem("runc", host.stateDir)).toBeUndefined();
  expect(await userNamespaceProblem("runsc", host.stateDir)).toContain("runsc");
  expect(await userNamespaceProblem("runc", "/proc")).toContain("owners of files cannot be mapped");
});
