import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import type { PublishedPort } from "../../container/options.ts";
import type { PortRange } from "../../container/policy.ts";
import { messageOf } from "../../std/error.ts";
import type { Logger } from "../../std/log.ts";
import { run, tryRun } from "../../std/spawn.ts";
import { RuntimeError } from "../error.ts";
import {
  addNetwork,
  type CniCall,
  type CniConfig,
  type CniResult,
  findPlugin,
  networkPlugins,
  removeNetwork,
} from "./cni.ts";
import { NetworkFirewall } from "./firewall.ts";
import { HostPorts } from "./ports.ts";
import { findTool } from "./programs.ts";
import { readNetworkRecord, writeNetworkRecord } from "./record.ts";
import { type Resolvers, resolvers } from "./resolvers.ts";
import { linkName, type NetworkNames, type NetworkSettings, networkName, networkNames } from "./settings.ts";

/** Leases of addresses, by subnet, of all workers of this host; like the links themselves they end with the boot. */
const leasesDirectory = "/run/oci-node/leases";
const linkTimeoutMs = 30_000;
/** How often the rules are looked at: at most, for containers that start; at least, while any runs. */
const rulesAgeMaxMs = 10_000;
const rulesCheckMs = 30_000;

/** What a container was given. */
export interface Attachment {
  readonly address: string;
  /** With the host ports that were taken. */
  readonly ports: readonly PublishedPort[];
  readonly resolvers: Resolvers;
}

export interface AttachRequest {
  readonly containerId: string;
  /** The container's first process: created, not started. */
  readonly pid: number;
  readonly ports: readonly PublishedPort[];
  /** Where ports may be published; absent: anywhere. */
  readonly publish?: readonly PortRange[] | undefined;
}

/**
 * The private networks of a worker's containers: a link of each to the host (CNI's ptp), an address (host-local), published
 * ports (portmap), and the firewall between. No two containers share a bridge, so all that goes between them, and to
 * the host, passes the host's rules.
 */
export class PrivateNetworks {
  readonly #settings: NetworkSettings;
  readonly #names: NetworkNames;
  readonly #marker: string;
  readonly #logger: Logger;
  readonly #firewall: NetworkFirewall;
  readonly #ports = new HostPorts();
  readonly #attached = new Set<string>();
  #readying: Promise<Resolvers> | undefined;
  #readySince = 0;
  #toldNameless = false;
  #watch: ReturnType<typeof setInterval> | undefined;

  constructor(options: {
    readonly settings: NetworkSettings;
    readonly stateDir: string;
    /** A file that says that there are rules; it ends with the boot, as they do. */
    readonly marker: string;
    readonly logger: Logger;
  }) {
    this.#settings = options.settings;
    this.#names = networkNames(options.stateDir);
    this.#marker = options.marker;
    this.#logger = options.logger;
    this.#firewall = new NetworkFirewall(options.settings, this.#names, options.logger);
  }

  /** Looks for what {@link attach} needs, before anything is made. @throws RuntimeError `network` */
  checkPrograms(): void {
    for (const plugin of networkPlugins) findPlugin(plugin, this.#settings.cniPath);
    for (const name of ["ip", "iptables", "iptables-save", "iptables-restore"]) findTool(name);
  }

  /**
   * Sees that the host forwards and filters as it must. What was seen counts for some seconds.
   * @throws RuntimeError `network`
   */
  ready(): Promise<Resolvers> {
    if (this.#readying !== undefined && Date.now() - this.#readySince < rulesAgeMaxMs) return this.#readying;
    const readying = this.#makeReady();
    this.#readying = readying;
    this.#readySince = Date.now();
    readying.catch(() => {
      if (this.#readying === readying) this.#readying = undefined;
    });
    return readying;
  }

  /**
   * Connects a container whose first process waits to be started. What {@link detach} needs is in the file `record` before
   * anything is made.
   * @throws RuntimeError `network`, `port_taken`
   */
  async attach(request: AttachRequest, record: string): Promise<Attachment> {
    const { containerId } = request;
    const { subnet } = this.#settings;
    const found = await this.ready();
    this.#keep(containerId);
    const ports = await this.#ports.take(containerId, request.ports, request.publish);
    await writeNetworkRecord(record, { version: 1, subnet, ports });
    const call = this.#call(containerId, `/proc/${request.pid}/ns/net`);
    const result = await addNetwork(await this.#link(subnet), call);
    const address = addressOf(result);
    await writeNetworkRecord(record, { version: 1, subnet, ports, address });
    await this.#nameLink(result, address);
    if (ports.length > 0) await addNetwork(portMap(subnet, ports, result), call);
    return { address, ports, resolvers: found };
  }

  /** Holds what a container of the process before this one has. */
  async adopt(containerId: string, ports: readonly PublishedPort[]): Promise<void> {
    this.#keep(containerId);
    for (const { hostAddress, hostPort, protocol } of await this.#ports.retake(containerId, ports)) {
      // The mapping comes before any socket, so the container goes on to be reached.
      this.#logger.warning("a program of the host took a port that a container has", {
        container: containerId,
        port: `${hostAddress}:${hostPort}/${protocol}`,
      });
    }
    await this.#lookAfter();
  }

  /** Takes away what {@link attach} made, however far it came and whoever made it; the container's processes have ended. */
  async detach(containerId: string, record: string): Promise<void> {
    await this.disconnect(containerId, record);
    this.#ports.release(containerId);
    this.#attached.delete(containerId);
  }

  /** As {@link detach}, but for the host's ports: a container whose program is started again is attached again with them. */
  async disconnect(containerId: string, record: string): Promise<void> {
    const made = await readNetworkRecord(record);
    if (made !== undefined) {
      // Its end inside goes with it; the kernel would be at that some time after the last process has gone.
      if (made.address !== undefined) await removeLink(linkName(this.#names, made.subnet, made.address));
      const call = this.#call(containerId, "");
      if (made.ports.length > 0) await removeNetwork(portMap(made.subnet, made.ports), call);
      await removeNetwork(await this.#link(made.subnet), call);
    }
    await rm(record, { force: true });
  }

  /** Lets go of this process's part; the rules go too when no container needs them. */
  async close(): Promise<void> {
    clearInterval(this.#watch);
    this.#ports.close();
    await this.#readying?.catch(() => undefined);
    this.#readying = undefined;
    if (this.#attached.size > 0 || !existsSync(this.#marker)) return;
    await this.#firewall.remove();
    await rm(this.#marker, { force: true });
  }

  /** As long as there are containers, their rules are looked at: whoever reloads a firewall may take them away. */
  #keep(containerId: string): void {
    this.#attached.add(containerId);
    this.#watch ??= setInterval(() => {
      if (this.#attached.size > 0) void this.#lookAfter();
    }, rulesCheckMs);
    this.#watch.unref();
  }

  async #lookAfter(): Promise<void> {
    await this.ready().catch((error: unknown) =>
      this.#logger.error("the firewall rules of containers could not be seen to", {
        error: messageOf(error),
      }),
    );
  }

  async #makeReady(): Promise<Resolvers> {
    const found = await resolvers(this.#settings.dns);
    if (found.servers.length === 0 && !this.#toldNameless) {
      this.#toldNameless = true;
      this.#logger.warning("containers resolve no names: the host's name servers are on its loopback", {
        next: "Set worker.network.dns.",
      });
    }
    await writeFile(this.#marker, "");
    await this.#firewall.ensure(found.servers);
    return found;
  }

  #call(containerId: string, namespace: string): CniCall {
    return { containerId, namespace, pluginFolders: this.#settings.cniPath };
  }

  async #link(subnet: string): Promise<CniConfig> {
    const mtu = this.#settings.mtu ?? (await hostMtu());
    return {
      type: "ptp",
      name: networkName(subnet),
      ...(mtu === undefined ? {} : { mtu }),
      // One rule of ours is for all addresses: a rule for each would stay behind when its namespace is gone first.
      ipMasq: false,
      ipam: {
        type: "host-local",
        dataDir: leasesDirectory,
        ranges: [[{ subnet }]],
        routes: [{ dst: "0.0.0.0/0" }],
      },
    };
  }

  /**
   * Gives the host's end the name that the firewall's rules are for: only from then on does a packet pass. IPv6 is switched
   * off there, so that nothing of the host answers raw frames at its link-local address.
   */
  async #nameLink(result: CniResult, address: string): Promise<void> {
    const made = result.interfaces.find(({ sandbox }) => sandbox === undefined || sandbox === "")?.name;
    if (made === undefined) throw new RuntimeError("network", "the CNI plugin ptp named no link of the host");
    const name = linkName(this.#names, this.#settings.subnet, address);
    const steps = [
      `link set dev ${made} down`,
      `link set dev ${made} name ${name}`,
      `link set dev ${name} up`,
      // The route went with the link's state.
      `route replace ${address}/32 dev ${name} scope host`,
    ];
    await run([findTool("ip"), "-batch", "-"], {
      stdin: `${steps.join("\n")}\n`,
      timeoutMs: linkTimeoutMs,
    }).catch((cause: unknown) => {
      throw new RuntimeError("network", `the link of a container could not be named ${name}`, {
        cause,
        next: `See whether another one has the name: ip link show ${name}`,
      });
    });
    await writeFile(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, "1").catch(() => undefined);
  }
}

/** portmap(8): by its configuration as a plugin of its own, after the one that made the link. */
function portMap(subnet: string, ports: readonly PublishedPort[], previous?: CniResult): CniConfig {
  return {
    type: "portmap",
    name: networkName(subnet),
    ...(previous === undefined ? {} : { prevResult: previous }),
    runtimeConfig: {
      portMappings: ports.map(({ hostAddress, hostPort, containerPort, protocol }) => ({
        ...(hostAddress === "0.0.0.0" ? {} : { hostIP: hostAddress }),
        hostPort,
        containerPort,
        protocol,
      })),
    },
  };
}

function addressOf(result: CniResult): string {
  const address = result.ips[0]?.address.split("/")[0];
  if (address === undefined) throw new RuntimeError("network", "the CNI plugin ptp gave no address");
  return address;
}

async function removeLink(name: string): Promise<void> {
  const { exitCode, stderr } = await tryRun([findTool("ip"), "link", "delete", "dev", name], {
    timeoutMs: linkTimeoutMs,
  });
  if (exitCode === 0 || /cannot find device|no such device/i.test(stderr)) return;
  throw new RuntimeError("cleanup_failed", `the link ${name} could not be removed: ${stderr.trim()}`);
}

/** Of the interface with the default route (/proc/net/route): larger packets would not get through. */
async function hostMtu(): Promise<number | undefined> {
  try {
    const lines = (await readFile("/proc/net/route", "utf8")).trim().split("\n").slice(1);
    const name = lines
      .map((line) => line.split("\t"))
      .find(([, destination]) => destination === "00000000")?.[0];
    return name === undefined ? undefined : Number(await readFile(`/sys/class/net/${name}/mtu`, "utf8"));
  } catch {
    return undefined;
  }
}
