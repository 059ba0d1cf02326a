import { readFile, writeFile } from "node:fs/promises";
import { messageOf } from "../../std/error.ts";
import type { Logger } from "../../std/log.ts";
import { run } from "../../std/spawn.ts";
import { RuntimeError } from "../error.ts";
import { findTool } from "./programs.ts";
import { networkRules, type RuleSet } from "./rules.ts";
import type { NetworkNames, NetworkSettings } from "./settings.ts";

const timeoutMs = 30_000;
/** Others change the same tables: how long a change waits for them. */
const lockSeconds = "10";
const forwardingFile = "/proc/sys/net/ipv4/ip_forward";

/** The rules of one worker's containers in the host's iptables: chains of its own, and the jumps to them. */
export class NetworkFirewall {
  readonly #settings: NetworkSettings;
  readonly #names: NetworkNames;
  readonly #logger: Logger;
  /** Our lines as `iptables-save` gave them after the last change. */
  #kept = "";
  #wanted = "";

  constructor(settings: NetworkSettings, names: NetworkNames, logger: Logger) {
    this.#settings = settings;
    this.#names = names;
    this.#logger = logger;
  }

  /**
   * Makes the rules, or makes them again where somebody took one away. The change is whole or none, and what is there
   * counts until then.
   * @throws RuntimeError `network`
   */
  async ensure(nameServers: readonly string[]): Promise<void> {
    await this.#ensureForwarding();
    const rules = await this.#rules(nameServers);
    const wanted = JSON.stringify(rules);
    const present = await this.#ownLines();
    if (wanted === this.#wanted && present.join("\n") === this.#kept) return;
    if (this.#kept !== "" && wanted === this.#wanted)
      this.#logger.warning("somebody changed the firewall rules of containers: they are made again");
    await restore(this.#change(rules, present));
    this.#kept = (await this.#ownLines()).join("\n");
    this.#wanted = wanted;
  }

  /** Whether this host could have the rules. Changes nothing. @throws RuntimeError `network` */
  async try(nameServers: readonly string[]): Promise<void> {
    const rules = await this.#rules(nameServers);
    await restore(this.#change(rules, []), ["--test"]);
  }

  /** Takes all of it away, whoever made it. */
  async remove(): Promise<void> {
    const present = await this.#ownLines();
    if (present.length > 0) await restore(this.#change(undefined, present));
    this.#kept = "";
  }

  async #rules(nameServers: readonly string[]): Promise<RuleSet> {
    const max = this.#settings.connectionsMax ?? (await trackedMax()) / 4;
    return networkRules(this.#settings, this.#names, nameServers, Math.floor(max));
  }

  /** The jumps and rules of ours that are there, as `TABLE LINE`. */
  async #ownLines(): Promise<string[]> {
    const { stdout } = await iptables(["iptables-save"]);
    const lines: string[] = [];
    let table = "";
    for (const line of stdout.split("\n")) {
      if (line.startsWith("*")) table = line.slice(1);
      // A chain without rules counts too; the counters behind its name do not.
      if (line.includes(this.#names.chainPrefix)) lines.push(`${table} ${line.replace(/ \[\d+:\d+\]$/, "")}`);
    }
    return lines;
  }

  /** Input of iptables-restore(8): our jumps go, our chains become empty, and are filled or removed. */
  #change(rules: RuleSet | undefined, present: readonly string[]): string {
    const tables = ["raw", "filter", "nat"].map((table) => {
      const own = present
        .filter((line) => line.startsWith(`${table} `))
        .map((line) => line.slice(table.length + 1));
      const there = own
        .filter((line) => line.startsWith(":"))
        .map((line) => line.slice(1).split(" ")[0] ?? "");
      const chains = new Set([...there, ...(rules?.chains[table] ?? [])]);
      const jumps = own.filter(
        (line) => line.startsWith("-A ") && !line.startsWith(`-A ${this.#names.chainPrefix}`),
      );
      const wanted = (rules?.jumps ?? []).filter((jump) => jump.table === table);
      return [
        `*${table}`,
        // Naming a chain makes it, or makes it empty.
        ...[...chains].map((chain) => `:${chain} - [0:0]`),
        ...jumps.map((line) => line.replace("-A", "-D")),
        ...(rules?.rules[table] ?? []),
        ...wanted.map(({ rule }) => `-I ${rule.replace(" ", " 1 ")}`),
        ...(rules === undefined ? [...chains].map((chain) => `-X ${chain}`) : []),
        "COMMIT",
      ];
    });
    return `${tables.flat().join("\n")}\n`;
  }

  /**
   * Without forwarding no packet leaves a container. A host that forwarded nothing before goes on to forward nothing else:
   * the policy of its FORWARD chain is set to DROP first, as Docker does.
   */
  async #ensureForwarding(): Promise<void> {
    if ((await readFile(forwardingFile, "utf8")).trim() === "1") return;
    await iptables(["iptables", "-w", lockSeconds, "-P", "FORWARD", "DROP"]);
    await writeFile(forwardingFile, "1");
    this.#logger.info(
      "IPv4 forwarding was off: it is on now for containers, and everything else is not forwarded",
      {
        sysctl: "net.ipv4.ip_forward",
        forwardPolicy: "DROP",
      },
    );
  }
}

/** How many connections the host can keep track of; the kernel's usual number until its table is there. */
async function trackedMax(): Promise<number> {
  const text = await readFile("/proc/sys/net/netfilter/nf_conntrack_max", "utf8").catch(() => "");
  return Number(text) || 65_536;
}

async function restore(input: string, flags: readonly string[] = []): Promise<void> {
  await iptables(["iptables-restore", "--wait", lockSeconds, "--noflush", ...flags], input);
}

async function iptables(argv: readonly [string, ...string[]], stdin?: string): Promise<{ stdout: string }> {
  const [name, ...rest] = argv;
  const program = findTool(name);
  try {
    return await run([program, ...rest], { timeoutMs, ...(stdin === undefined ? {} : { stdin }) });
  } catch (cause) {
    throw new RuntimeError("network", `the firewall of containers could not be set: ${messageOf(cause)}`, {
      cause,
      next: "See `oci-node doctor` on the worker, or run with --network none.",
    });
  }
}
