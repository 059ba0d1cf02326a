import type { NetworkNames, NetworkSettings } from "./settings.ts";

/** A jump from one of the kernel's chains into one of ours. */
export interface Jump {
  readonly table: string;
  /** As `iptables-save` writes it, without the `-A`. */
  readonly rule: string;
}

export interface RuleSet {
  readonly jumps: readonly Jump[];
  /** By table: our chains. */
  readonly chains: Readonly<Record<string, readonly string[]>>;
  /** By table: the rules of our chains, as `iptables-restore` takes them. */
  readonly rules: Readonly<Record<string, readonly string[]>>;
}

/** At once, and not by a wait: an ICMP answer to a connection's first packet comes too early for Linux to take it. */
const refuse = (match = ""): string[] => [
  `${match} -p tcp -j REJECT --reject-with tcp-reset`.trim(),
  `${match} -j REJECT --reject-with icmp-admin-prohibited`.trim(),
];
const answers = [
  "-m conntrack --ctstate ESTABLISHED -j ACCEPT",
  // What a path says of a packet (too large, not reached); of no other protocol, so that no helper opens a way.
  "-p icmp -m conntrack --ctstate RELATED -j ACCEPT",
];

/**
 * What containers may reach and who reaches them (iptables-extensions(8)):
 * - SOURCE: a packet whose source is not the address of the link that it came by is dropped, before anything sees it
 * - HOST: the host itself is reached by answers to what it asked, and else only where the operator allows it
 * - FROM: another container, and what the operator denies, is refused; the rest of the world is reached, by so many
 *   connections at once that the host's table of them, which all share, is not filled by one container
 * - TO: from elsewhere come answers and what was published, nothing else
 * - NAT: the world sees the host's address
 */
export function networkRules(
  settings: NetworkSettings,
  names: NetworkNames,
  nameServers: readonly string[],
  connectionsMax: number,
): RuleSet {
  const { chainPrefix } = names;
  const links = `${names.linkPrefix}+`;
  const chain = (name: string): string => `${chainPrefix}${name}`;
  const of = (name: string, rules: readonly string[]): string[] =>
    rules.map((rule) => `-A ${chain(name)} ${rule}`);
  // A name server may be at a denied address: at some clouds it is the metadata service's.
  const resolving = nameServers.flatMap((server) =>
    ["udp", "tcp"].map((protocol) => `-d ${server} -p ${protocol} --dport 53 -j ACCEPT`),
  );
  const denied = settings.deny.flatMap((range) => refuse(`-d ${range}`));
  return {
    jumps: [
      { table: "raw", rule: `PREROUTING -i ${links} -j ${chain("SOURCE")}` },
      { table: "filter", rule: `INPUT -i ${links} -j ${chain("HOST")}` },
      { table: "filter", rule: `FORWARD -o ${links} -j ${chain("TO")}` },
      { table: "filter", rule: `FORWARD -i ${links} -j ${chain("FROM")}` },
      { table: "nat", rule: `POSTROUTING -s ${settings.subnet} -j ${chain("NAT")}` },
    ],
    chains: {
      raw: [chain("SOURCE")],
      filter: [chain("HOST"), chain("TO"), chain("FROM")],
      nat: [chain("NAT")],
    },
    rules: {
      raw: of("SOURCE", ["-m rpfilter --invert -j DROP"]),
      filter: [
        ...of("HOST", [
          ...answers,
          // Port mapping at the host's loopback makes its addresses reachable from the link.
          "-d 127.0.0.0/8 -j DROP",
          ...resolving,
          ...denied,
          ...(settings.allowHost ? [] : refuse()),
        ]),
        ...of("TO", [...answers, "-m conntrack --ctstate DNAT -j ACCEPT", "-j DROP"]),
        ...of("FROM", [
          "-m conntrack --ctstate INVALID -j DROP",
          ...answers,
          ...refuse(`-o ${links}`),
          // Also where no container has the address: else the packet would go to the host's own router.
          ...refuse(`-d ${settings.subnet}`),
          ...refuse(`-m connlimit --connlimit-above ${connectionsMax} --connlimit-mask 32 --connlimit-saddr`),
          ...resolving,
          ...denied,
          "-j ACCEPT",
        ]),
      ],
      nat: of("NAT", [`-o ${links} -j RETURN`, "-d 224.0.0.0/4 -j RETURN", "-j MASQUERADE"]),
    },
  };
}
