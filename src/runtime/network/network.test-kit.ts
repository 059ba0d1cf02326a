import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { run, tryRun } from "../../std/spawn.ts";
import { networkName, networkNames } from "./settings.ts";

const leases = "/run/oci-node/leases";

/** What is left in the host's network of a state directory's containers: links, leases, published ports. */
export async function networkLeftovers(stateDir: string, subnet: string): Promise<string[]> {
  const { linkPrefix } = networkNames(stateDir);
  const links = (await readdir("/sys/class/net")).filter((name) => name.startsWith(linkPrefix));
  const folder = join(leases, networkName(subnet));
  const given = (await readdir(folder).catch(() => [])).filter((name) => /^\d/.test(name));
  const { stdout } = await run(["iptables-save", "-t", "nat"]);
  const mapped = stdout.split("\n").filter((line) => line.includes(networkName(subnet)));
  return [...links, ...given.map((address) => `lease ${address}`), ...mapped];
}

/** The lines of a worker's own in the host's firewall. */
export async function firewallLines(stateDir: string): Promise<string[]> {
  const { stdout } = await run(["iptables-save"]);
  return stdout.split("\n").filter((line) => line.includes(networkNames(stateDir).chainPrefix));
}

/** For after the tests: no failure of one leaves anything on the host. */
export async function removeNetworks(stateDir: string, subnet: string): Promise<void> {
  for (const name of await readdir("/sys/class/net"))
    if (name.startsWith(networkNames(stateDir).linkPrefix)) await tryRun(["ip", "link", "delete", name]);
  await rm(join(leases, networkName(subnet)), { recursive: true, force: true });
}

/** Starts the server of `network-answers.test-kit.ts` in a network namespace; it ends with what is returned. */
export async function answerIn(
  enter: readonly string[],
  address: string,
  ports: { readonly tcp: number; readonly udp: number },
): Promise<AsyncDisposable> {
  const script = join(import.meta.dir, "answers.test-kit.ts");
  const server = Bun.spawn(
    [...enter, process.execPath, script, address, String(ports.tcp), String(ports.udp)],
    { stdin: "pipe", stdout: "pipe", stderr: "ignore" },
  );
  for await (const _ of server.stdout) break;
  return {
    async [Symbol.asyncDispose]() {
      server.kill("SIGKILL");
      await server.exited;
    },
  };
}

/** One line from a port that answers, or nothing within a second. */
export async function ask(
  protocol: "tcp" | "udp",
  address: string,
  port: number,
  enter: readonly string[] = [],
): Promise<string> {
  const script = `exec 3<>/dev/${protocol}/${address}/${port} && echo >&3 && timeout 1 head -n 1 <&3`;
  return (await tryRun([...enter, "bash", "-c", script], { timeoutMs: 20_000 })).stdout.trim();
}

/** A network namespace with one link to the host: everybody else, as a container sees him. */
export class Outside {
  readonly name: string;
  /** Of a host in the world: TCP port 7 and UDP port 53 answer. */
  readonly address: string;
  /** Of this host, on that side. */
  readonly hostAddress: string;
  /** How a program is run out there. */
  readonly enter: readonly string[];
  #server: AsyncDisposable | undefined;

  private constructor(key: number) {
    this.name = `onout${key.toString(16)}`;
    const network = [198, 18, key >> 6, (key & 63) << 2];
    this.hostAddress = [...network.slice(0, 3), network[3]! + 1].join(".");
    this.address = [...network.slice(0, 3), network[3]! + 2].join(".");
    this.enter = ["ip", "netns", "exec", this.name];
  }

  static async open(): Promise<Outside> {
    const outside = new Outside(Math.floor(Math.random() * 2 ** 14));
    const { name, address, hostAddress } = outside;
    await run(["ip", "netns", "add", name]);
    const here = [
      `link add ${name} type veth peer name eth0 netns ${name}`,
      `address add ${hostAddress}/30 dev ${name}`,
      `link set dev ${name} up`,
    ];
    // No route back: only what this host's own address asked is answered.
    const there = [`address add ${address}/30 dev eth0`, "link set dev eth0 up", "link set dev lo up"];
    await run(["ip", "-batch", "-"], { stdin: `${here.join("\n")}\n` });
    await run(["ip", "-netns", name, "-batch", "-"], { stdin: `${there.join("\n")}\n` });
    outside.#server = await answerIn(outside.enter, address, { tcp: 7, udp: 53 });
    return outside;
  }

  async close(): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
    await tryRun(["ip", "link", "delete", this.name]);
    await run(["ip", "netns", "delete", this.name]);
  }
}
