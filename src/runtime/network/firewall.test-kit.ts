import { readFile, writeFile } from "node:fs/promises";
import { logger } from "../../std/log.ts";
import { run } from "../../std/spawn.ts";
import { NetworkFirewall } from "./firewall.ts";
import { defaultNetworkSettings, networkNames } from "./settings.ts";

// Makes, loses, changes and removes the rules in a network namespace of its own, which is made to forward nothing at first. Says what is
// there after each step: one JSON line.
const settings = defaultNetworkSettings;
const names = networkNames("/var/lib/oci-node/containers");
const firewall = (more = {}) => new NetworkFirewall({ ...settings, ...more }, names, logger("runtime"));

const forwarding = "/proc/sys/net/ipv4/ip_forward";
await writeFile(forwarding, "0");
const first = firewall();
const said: Record<string, unknown> = {};
await run(["iptables", "-A", "FORWARD", "-d", "192.0.2.1", "-j", "DROP"]);
await first.ensure(["169.254.169.254"]);
said["made"] = await lines();
said["forwarded"] = (await readFile(forwarding, "utf8")).trim();

await first.ensure(["169.254.169.254"]);
said["again"] = await lines();

for (const table of ["filter", "nat", "raw"]) await run(["iptables", "-t", table, "-F"]);
await first.ensure(["169.254.169.254"]);
said["restored"] = await lines();

await firewall({ allowHost: true, deny: ["10.0.0.0/8"] }).ensure([]);
said["changed"] = await lines();

await firewall().remove();
await firewall().remove();
said["removed"] = await lines();
process.stdout.write(`${JSON.stringify(said)}\n`);

async function lines(): Promise<string[]> {
  const { stdout } = await run(["iptables-save"]);
  return stdout.split("\n").filter((line) => line.startsWith("-") || line.startsWith(":FORWARD"));
}
