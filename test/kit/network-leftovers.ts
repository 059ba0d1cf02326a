import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { NetworkFirewall } from "../../src/runtime/network/firewall.ts";
import { PrivateNetworks } from "../../src/runtime/network/network.ts";
import { defaultNetworkSettings, networkNames } from "../../src/runtime/network/settings.ts";
import { logger } from "../../src/std/log.ts";

const leases = "/run/oci-node/leases";

/** Where nodes keep their containers, whose data are the folder or below it: by that their links and chains are named. */
function stateDirs(dir: string): string[] {
  const below = ["-maxdepth", "4", "-type", "d", "-path", "*/worker/containers"];
  const { stdout } = Bun.spawnSync(["find", dir, ...below], { stderr: "ignore" });
  const found = stdout.toString().split("\n");
  return [...new Set([join(dir, "worker", "containers"), ...found])].filter((path) => path !== "");
}

/** What a node, or its containers, left in the host's network: links, chains, mapped ports, leases of addresses. */
export async function networkLeftovers(dir: string, containerIds: readonly string[]): Promise<string[]> {
  const names = stateDirs(dir).map(networkNames);
  const links = (await readdir("/sys/class/net")).filter((name) =>
    names.some(({ linkPrefix }) => name.startsWith(linkPrefix)),
  );
  const rules = Bun.spawnSync(["iptables-save"]).stdout.toString().split("\n");
  const words = [...names.map(({ chainPrefix }) => chainPrefix), ...containerIds];
  const own = rules.filter((rule) => words.some((word) => rule.includes(word)));
  const held = [];
  for (const network of containerIds.length === 0 ? [] : await readdir(leases).catch(() => [])) {
    for (const address of await readdir(join(leases, network))) {
      const holder = await readFile(join(leases, network, address), "utf8").catch(() => "");
      if (containerIds.some((id) => holder.startsWith(id))) held.push(`lease ${address} ${holder.trim()}`);
    }
  }
  return [...links.map((link) => `link ${link}`), ...own.map((rule) => `rule ${rule}`), ...held];
}

/** For a node that was killed: what its containers had in the host's network, and its chains. */
export async function sweepNetwork(dir: string): Promise<void> {
  const settings = defaultNetworkSettings;
  for (const stateDir of stateDirs(dir)) {
    const homes = join(stateDir, "containers");
    const networks = new PrivateNetworks({ settings, stateDir, marker: "", logger: logger("test") });
    for (const id of await readdir(homes).catch(() => []))
      await networks.detach(id, join(homes, id, "network.json"));
    await new NetworkFirewall(settings, networkNames(stateDir), logger("test")).remove();
  }
}
