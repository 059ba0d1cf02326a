import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { run, tryRun } from "../std/spawn.ts";
import { networkName, networkNames } from "./network-settings.ts";

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

/** A network namespace with one link to the host: everybody else, as a container sees him. Gone after `close`. */
export class Outside {
  readonly name: string;
  /** Of a host in the world. */
  readonly address: string;
  /** Of this host, on that side. */
  readonly hostAddress: string;
  #server: Bun.Subprocess<"ignore", "pipe", "inherit"> | undefined;

  private constructor(key: number) {
    this.name = `onout${key.toString(16)}`;
    this.hostAddress = `198.18.${key >> 8}.${(key & 0xfc) | 1}`;
    this.address = `198.18.${key >> 8}.${(key & 0xfc) | 2}`;
  }

  static async open(): Promise<Outside> {
    const outside = new Outside(Math.floor(Math.random() * 0xffff));
    const { name } = outside;
    await run(["ip", "netns", "add", name]);
    const steps = [
      `link add ${name} type veth peer name eth0 netns ${name}`,
      `address add ${outside.hostAddress}/30 dev ${name}`,
      `link set dev ${name} up`,
    ];
    await run(["ip", "-batch", "-"], { stdin: `${steps.join("\n")}\n` });
    const inside = [
      `address add ${outside.address}/30 dev eth0`,
      "link set dev eth0 up",
      "link set dev lo up",
    ];
    await run(["ip", "-netns", name, "-batch", "-"], { stdin: `${inside.join("\n")}\n` });
    // No route back: what is not answered to this host's own address is not answered.
    outside.#server = Bun.spawn(
      [
        "ip",
        "netns",
        "exec",
        name,
        process.execPath,
        join(import.meta.dir, "network-outside.test-kit.ts"),
        outside.address,
      ],
      { stdin: "ignore", stdout: "pipe", stderr: "inherit" },
    );
    for await (const _ of outside.#server.stdout) break;
    return outside;
  }

  /** Runs a program out there. */
  async run(argv: readonly string[]): Promise<string> {
    return (await tryRun(["ip", "netns", "exec", this.name, ...argv], { timeoutMs: 20_000 })).stdout;
  }

  async close(): Promise<void> {
    this.#server?.kill("SIGKILL");
    await this.#server?.exited;
    await tryRun(["ip", "link", "delete", this.name]);
    await run(["ip", "netns", "delete", this.name]);
  }
}
