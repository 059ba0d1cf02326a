import { readFile } from "node:fs/promises";
import { messageOf } from "../../std/error.ts";
import { logger } from "../../std/log.ts";
import { RuntimeError } from "../error.ts";
import { findPlugin, networkPlugins } from "./cni.ts";
import { NetworkFirewall } from "./firewall.ts";
import { resolvers } from "./resolvers.ts";
import { type NetworkSettings, networkNames, overlaps } from "./settings.ts";

/** What this host's private networks of containers would be like. */
export interface NetworkProbe {
  /** What is there, in short. */
  readonly found: readonly string[];
  /** Why none can be made; empty: they can. */
  readonly problems: readonly { readonly found: string; readonly next?: string | undefined }[];
  /** Sentences about what will work less than it could. */
  readonly warnings: readonly string[];
}

/** Looks without changing anything. */
export async function probeNetwork(settings: NetworkSettings): Promise<NetworkProbe> {
  const found: string[] = [`addresses from ${settings.subnet}`];
  const problems: { found: string; next?: string | undefined }[] = [];
  const warnings: string[] = [];
  const { servers } = await resolvers(settings.dns);
  const attempts = [
    () => networkPlugins.map((plugin) => findPlugin(plugin, settings.cniPath)),
    () => new NetworkFirewall(settings, networkNames("/probe"), logger("runtime")).try(servers),
  ];
  for (const attempt of attempts) {
    try {
      await attempt();
    } catch (error) {
      const next = error instanceof RuntimeError ? error.next : undefined;
      problems.push({ found: messageOf(error), next });
    }
  }
  if (servers.length > 0) found.push(`names by ${servers.join(", ")}`);
  else warnings.push("no name server of the host can be reached from containers: set worker.network.dns");
  if ((await readFile("/proc/sys/net/ipv4/ip_forward", "utf8")).trim() !== "1")
    found.push("IPv4 forwarding is off: the first container switches it on, for containers alone");
  const taken = (await hostRanges()).filter(({ range }) => overlaps(range, settings.subnet));
  for (const { range, link } of taken)
    warnings.push(`the host reaches ${range} by ${link}, which the containers' ${settings.subnet} hides`);
  return { found, problems, warnings };
}

/** What the host's routing table leads to (/proc/net/route), but for its default route and the links of containers. */
async function hostRanges(): Promise<{ range: string; link: string }[]> {
  const lines = (await readFile("/proc/net/route", "utf8")).trim().split("\n").slice(1);
  return lines.flatMap((line) => {
    const [link = "", destination = "", , , , , , mask = ""] = line.split("\t");
    if (destination === "00000000" || /^on[0-9a-f]{5}-/.test(link)) return [];
    return [{ range: `${addressOf(destination)}/${bitsOf(mask)}`, link }];
  });
}

/** From hexadecimal digits in the byte order of the processor, little-endian on all that we run on. */
function addressOf(hex: string): string {
  return [...Buffer.from(hex, "hex")].reverse().join(".");
}

function bitsOf(hex: string): number {
  return [...Number.parseInt(hex, 16).toString(2)].filter((digit) => digit === "1").length;
}
