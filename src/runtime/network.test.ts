import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { defaultOptions, type PublishedPort } from "../container/options.ts";
import type { RunningContainer } from "./container.ts";
import { firewallLines, Outside } from "./network.test-kit.ts";
import { TestHost, textOf } from "./runtime.test-kit.ts";
import type { Runtime } from "./runtime.ts";
import type { ContainerSpec } from "./spec.ts";

let host: TestHost;
let outside: Outside;
let runtime: Runtime;

const never = new AbortController().signal;

beforeAll(async () => {
  host = await TestHost.open();
  outside = await Outside.open();
  runtime = await host.runtime({ network: { ...host.network, dns: [outside.address] } });
});

afterEach(async () => {
  expect(await host.leftovers()).toEqual([]);
});

afterAll(async () => {
  await runtime.close();
  expect(await firewallLines(host.stateDir)).toEqual([]);
  await outside.close();
  await host.close();
});

function spec(script: string, ports: readonly PublishedPort[] = []): ContainerSpec {
  return host.spec(["sh", "-c", script], { network: "private", options: { ...defaultOptions, ports } });
}

async function remove(container: RunningContainer): Promise<void> {
  await container.cleanup();
  await container.removeLog();
}

/** What a script says in a private network. */
async function sh(script: string): Promise<string> {
  const container = await runtime.start(spec(script), never);
  try {
    await container.exited;
    return await textOf(runtime.logs(container.id));
  } finally {
    await remove(container);
  }
}

test("reaches the world as the host, and names by the operator's name server; without IPv6", async () => {
  const container = await runtime.start(
    spec(
      `cat /etc/hosts; busybox nc ${outside.address} 7 </dev/null; busybox nslookup -type=a name.test; busybox ip -o addr show dev eth0; cat /proc/net/ipv6_route`,
    ),
    never,
  );
  await container.exited;
  const output = await textOf(runtime.logs(container.id));
  await remove(container);
  expect(output).toContain(`\n${container.address}\t${container.id.slice(0, 12)}\n`);
  expect(output).toContain(`\nyou are ${outside.hostAddress}\n`);
  expect(output).toContain("\nAddress: 10.1.2.3\n");
  expect(output).toContain(`inet ${container.address}/28 `);
  expect(output).not.toContain("fe80");
  expect(output).not.toMatch(/ eth0$/m);
});

test("reaches neither the host, nor another container, nor what the operator denies", async () => {
  const other = await runtime.start(spec("busybox nc -l -p 80 >/dev/null"), never);
  const listening = Bun.listen({ hostname: "0.0.0.0", port: 0, socket: { data: () => undefined } });
  const targets = {
    gateway: `${host.network.subnet.replace("0/28", "1")} ${listening.port}`,
    host: `${outside.hostAddress} ${listening.port}`,
    other: `${other.address} 80`,
    nobody: `${host.network.subnet.replace("0/28", "14")} 80`,
    metadata: "169.254.169.254 80",
    world: `${outside.address} 7`,
  };
  const words = await sh(
    Object.entries(targets)
      .map(([name, target]) => `busybox nc -w 2 ${target} </dev/null >/dev/null 2>&1; echo ${name} $?`)
      .join("\n"),
  );
  listening.stop(true);
  await remove(other);
  expect(words).toBe("gateway 1\nhost 1\nother 1\nnobody 1\nmetadata 1\nworld 0\n");
});
