import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { defaultOptions, type PublishedPort } from "../../container/options.ts";
import { run } from "../../std/spawn.ts";
import type { RunningContainer } from "../container.ts";
import type { RuntimeError } from "../error.ts";
import { TestHost, textOf } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import type { ContainerSpec } from "../spec.ts";
import { answerIn, ask, firewallLines, Outside } from "./network.test-kit.ts";
import { networkNames } from "./settings.ts";

let host: TestHost;
let outside: Outside;
let runtime: Runtime;

const connectionsMax = 8;
const never = new AbortController().signal;

beforeAll(async () => {
  host = await TestHost.open();
  outside = await Outside.open();
  runtime = await host.runtime({ network: { ...host.network, dns: [outside.address], connectionsMax } });
});

afterEach(async () => {
  expect(await host.leftovers()).toEqual([]);
});

afterAll(async () => {
  await outside.close();
  await host.close();
  expect(await firewallLines(host.stateDir)).toEqual([]);
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
  expect(output).toContain(`\ntcp from ${outside.hostAddress}\n`);
  expect(output).toContain("\nAddress: 10.1.2.3\n");
  expect(output).toContain(`inet ${container.address}/28 `);
  expect(output).not.toContain("fe80");
  expect(output).not.toMatch(/ eth0$/m);
});

test("reaches neither the host, nor another container, nor what the operator denies", async () => {
  const other = await runtime.start(spec("busybox httpd -f -p 80"), never);
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

const publish = (hostAddress: string, protocol: "tcp" | "udp", hostPort = 0): PublishedPort => ({
  hostAddress,
  hostPort,
  containerPort: 8080,
  protocol,
});

const inside = (container: RunningContainer): string[] => ["nsenter", `--net=/proc/${container.pid}/ns/net`];

test("has no more connections at once than the host can spare", async () => {
  const container = await runtime.start(spec("exec sleep 1000"), never);
  const asked = () => ask("udp", outside.address, 53, inside(container));
  const answers = [];
  for (let count = 0; count < connectionsMax + 2; count += 1) answers.push(await asked());
  await remove(container);
  expect(answers).toEqual([...Array(connectionsMax).fill(`udp from ${outside.hostAddress}`), "", ""]);
});

test("publishes TCP and UDP at loopback, at an address and for the world", async () => {
  const wanted = [
    publish("127.0.0.1", "tcp"),
    publish("127.0.0.1", "udp"),
    publish(outside.hostAddress, "tcp"),
    publish("0.0.0.0", "udp"),
  ];
  const container = await runtime.start(spec("exec sleep 1000", wanted), never);
  try {
    const ports = container.ports.map(({ hostPort }) => hostPort);
    const [tcp = 0, udp = 0, addressed = 0, open = 0] = ports;
    expect(ports.every((port) => port > 1023)).toBe(true);
    await using _ = await answerIn(inside(container), "0.0.0.0", { tcp: 8080, udp: 8080 });
    const gateway = host.network.subnet.replace("0/28", "1");
    expect(await ask("tcp", "127.0.0.1", tcp)).toBe(`tcp from ${gateway}`);
    expect(await ask("udp", "127.0.0.1", udp)).toBe(`udp from ${gateway}`);
    expect(await ask("tcp", container.address ?? "", 8080)).toBe(`tcp from ${gateway}`);
    // The world is told apart; what is published at one address is not at another.
    expect(await ask("tcp", outside.hostAddress, addressed, outside.enter)).toBe(
      `tcp from ${outside.address}`,
    );
    expect(await ask("udp", outside.hostAddress, open, outside.enter)).toBe(`udp from ${outside.address}`);
    expect(await ask("tcp", outside.hostAddress, tcp, outside.enter)).toBe("");
    const again = spec("true", [publish("0.0.0.0", "tcp", tcp)]);
    expect(await runtime.start(again, never).catch((error: unknown) => error)).toMatchObject({
      code: "port_taken",
      message: `0.0.0.0:${tcp}/tcp is taken on this worker, by a container or a program of the host`,
    });
  } finally {
    await remove(container);
  }
});

test("finds its containers' networks again after a crash, and leaves nothing of them", async () => {
  const kept = spec("echo up; exec sleep 1000", [publish("127.0.0.1", "tcp")]);
  const half = spec("echo never", [publish("127.0.0.1", "tcp")]);
  await host.startInDyingProcess(kept);
  await host.startInDyingProcess(half, "created");
  const next = await host.runtime();
  const [container, ...others] = await next.adopt();
  expect(others).toEqual([]);
  const [port] = container?.ports ?? [];
  expect(container?.address).toMatch(/^10\./);
  await using _ = await answerIn(inside(container!), "0.0.0.0", { tcp: 8080, udp: 8080 });
  expect(await ask("tcp", "127.0.0.1", port?.hostPort ?? 0)).toStartWith("tcp from ");
  const again = spec("true", [publish("127.0.0.1", "tcp", port?.hostPort)]);
  expect(await next.start(again, never).catch((error: unknown) => error)).toMatchObject({
    code: "port_taken",
  });
  await remove(container!);
});

test("gives each of many containers an address of its own, and every address again", async () => {
  const addresses = new Set<string>();
  for (let round = 0; round < 3; round += 1) {
    const containers = await Promise.all([1, 2, 3, 4, 5, 6].map(() => runtime.start(spec("true"), never)));
    expect(new Set(containers.map(({ address }) => address)).size).toBe(6);
    for (const { address } of containers) addresses.add(address ?? "");
    await Promise.all(containers.map(remove));
  }
  // Of 16 the first, the host's and the last are nobody's.
  expect(addresses.size).toBeLessThan(14);
});

/** Resolves when the chain has dropped so many packets; the kernel may be about them yet. */
async function dropped(table: string, chain: string, packets: number): Promise<void> {
  const name = `${networkNames(host.stateDir).chainPrefix}${chain}`;
  for (let seen = -1; seen !== packets; ) {
    const { stdout } = await run(["iptables", "-w", "-t", table, "-nvxL", name]);
    seen = Number(/^ *(\d+) +\d+ +DROP/m.exec(stdout)?.[1]);
    expect(seen).toBeLessThanOrEqual(packets);
  }
}

test("lets no packet pass that says it is another's, and none to the host's loopback", async () => {
  const container = await runtime.start(spec("exec sleep 1000", [publish("127.0.0.1", "udp")]), never);
  const heard: string[] = [];
  const listener = await Bun.udpSocket({
    hostname: "127.0.0.1",
    socket: { data: (_, data) => void heard.push(data.toString()) },
  });
  try {
    const [first] = container.ports;
    const forge = join(import.meta.dir, "forge.test-kit.py");
    const gateway = host.network.subnet.replace("0/28", "1");
    const own = container.address ?? "";
    const neighbour = host.network.subnet.replace("0/28", own.endsWith(".14") ? "13" : "14");
    const send = (source: string, target: string, port: number) =>
      run([...inside(container), "python3", forge, gateway, source, target, String(port)]);
    expect(first?.hostPort).toBeGreaterThan(0);
    await send(own, "127.0.0.1", listener.port);
    await send(neighbour, outside.address, 53);
    await send("198.51.100.7", outside.address, 53);
    await dropped("raw", "SOURCE", 2);
    await dropped("filter", "HOST", 1);
    // Sent after those, by the host itself.
    const sender = await Bun.udpSocket({ connect: { hostname: "127.0.0.1", port: listener.port } });
    sender.send("mine");
    while (heard.length === 0) await new Promise((resolve) => setImmediate(resolve));
    sender.close();
    expect(heard).toEqual(["mine"]);
  } finally {
    listener.close();
    await remove(container);
  }
});

test("refuses ports where there is no network of its own, and those that the operator does not allow", async () => {
  const ports = [publish("127.0.0.1", "tcp")];
  const cases: [Partial<ContainerSpec>, string, RegExp][] = [
    [{ network: "host" }, "network", /host's network cannot publish/],
    [{ network: "none" }, "network", /without a network cannot publish/],
    [{ publish: [] }, "network", /does not let the workspace publish at 127.0.0.1:0/],
    [
      { options: { ...defaultOptions, ports: [publish("192.0.2.77", "tcp")] } },
      "network",
      /not an address of this/,
    ],
  ];
  for (const [more, code, message] of cases) {
    const refused = { ...spec("true", ports), ...more };
    const error = (await runtime.start(refused, never).catch((thrown: unknown) => thrown)) as RuntimeError;
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
    expect(error.next).toBeString();
  }
  const free = { ...spec("true", ports), publish: [{ address: "127.0.0.1", first: 20_100, last: 20_300 }] };
  const container = await runtime.start(free, never);
  const [port] = container.ports;
  await remove(container);
  expect(port?.hostPort).toBeWithin(20_100, 20_301);
});

test("says what is missing where CNI's plugins are not installed, and runs without a network all the same", async () => {
  const bare = await host.runtime({ network: { ...host.network, cniPath: [join(host.directory, "none")] } });
  expect(await bare.start(spec("true"), never).catch((thrown: unknown) => thrown)).toMatchObject({
    code: "network",
    message: expect.stringContaining("containernetworking-plugins is not installed"),
    next: expect.stringContaining("--network none"),
  });
  await remove(await bare.start(host.spec(["true"]), never));
});
