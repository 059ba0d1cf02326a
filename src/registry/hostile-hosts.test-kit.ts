import { type HostileRow, signal } from "./hostile-row.test-kit.ts";

/** Addresses that are nobody's on the public internet, and whether one can try to connect to them at all. */
export const privateAddresses: readonly (readonly [address: string, what: string, connectable?: false])[] = [
  ["127.0.0.1", "loopback"],
  ["127.255.255.254", "the end of loopback"],
  ["10.0.0.1", "a private network"],
  ["172.16.0.1", "a private network"],
  ["172.31.255.254", "the end of a private network"],
  ["192.168.0.1", "a private network"],
  ["169.254.169.254", "the metadata service"],
  ["169.254.170.2", "the metadata service of ECS"],
  ["100.64.0.1", "carriers' own addresses"],
  ["100.100.100.200", "the metadata service of Alibaba"],
  ["168.63.129.16", "the host of a machine at Azure"],
  ["192.0.0.192", "the metadata service of Oracle"],
  ["198.18.0.1", "benchmarks"],
  ["192.0.2.1", "documentation"],
  ["198.51.100.1", "documentation"],
  ["203.0.113.1", "documentation"],
  ["192.88.99.1", "6to4's relays"],
  ["0.0.0.0", "this host", false],
  ["0.0.0.1", "this network", false],
  ["224.0.0.1", "many hosts", false],
  ["240.0.0.1", "the future"],
  ["255.255.255.255", "everybody", false],
  ["::1", "loopback"],
  ["::", "no address", false],
  ["::ffff:127.0.0.1", "loopback, mapped", false],
  ["::ffff:169.254.169.254", "the metadata service, mapped", false],
  ["::7f00:1", "loopback, the old compatible way"],
  ["64:ff9b::7f00:1", "loopback, through NAT64"],
  ["64:ff9b::a9fe:a9fe", "the metadata service, through NAT64"],
  ["64:ff9b:1::7f00:1", "loopback, through a local NAT64"],
  ["2002:7f00:1::", "loopback, by 6to4"],
  ["2002:a9fe:a9fe::1", "the metadata service, by 6to4"],
  ["2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"],
  ["fc00::1", "a private network"],
  ["fd00:ec2::254", "the metadata service"],
  ["fe80::1", "the link", false],
  ["fec0::1", "a site, of old"],
  ["ff02::1", "many hosts", false],
  ["2001:db8::1", "documentation"],
  ["3fff::1", "documentation"],
  ["100::1", "the drain"],
  ["5f00::1", "segment routing"],
];

function literal([address, what, connectable]: (typeof privateAddresses)[number]): HostileRow {
  const host = address.includes(":") ? new URL(`http://[${address}]`).host : address;
  return {
    name: `a registry at ${address} (${what})`,
    reference: `${address.includes(":") ? `[${address}]` : address}/acme/app:1`,
    outcome: "egress_refused",
    ...(connectable === false
      ? {}
      : {
          twin: {
            policy: { insecureHosts: new Set([host]) },
            outcome: "served",
            told: [`http://${host}`],
            reached: [address],
          },
        }),
  };
}

function led([address, what, connectable]: (typeof privateAddresses)[number]): HostileRow {
  return {
    name: `a name that leads to ${address} (${what})`,
    dns: { "registry.example": [[address]] },
    outcome: "egress_refused",
    ...(connectable === false
      ? {}
      : {
          twin: {
            policy: { privateHosts: new Set(["registry.example"]) },
            outcome: "served",
            told: ["https://registry.example"],
            reached: [address],
          },
        }),
  };
}

/** Spellings that some parser takes for an address or a host that they do not look like. */
export const spellings: readonly string[] = [
  "2130706433",
  "017700000001",
  "0x7f000001",
  "0177.0.0.1",
  "0x7f.0.0.1",
  "0x7f.0x0.0x0.0x1",
  "127.1",
  "127.0.1",
  "127.000.000.001",
  "10.1",
  "192.168.257",
  "0xa9fea9fe",
  "2852039166",
  "0251.0376.0251.0376",
  "169.254.43518",
  "0xa9.254.0251.0376",
  "127.0.0.1.",
  "localhost.",
  "１２７.0.0.1",
  "127。0。0。1",
  "①②⑦.⓪.⓪.①",
  "ｌocalhost",
  "loc%61lhost",
  "127.0.0.1%00.example",
  "registry.example@127.0.0.1",
  "registry.example:443@127.0.0.1:80",
  "registry.example\\@127.0.0.1",
  "127.0.0.1#registry.example",
  "127.0.0.1?registry.example",
  "127.0.0.1\tregistry.example",
  "registry.example\\127.0.0.1",
  "registry.example..",
  ".registry.example",
  "registry..example",
  "registry.example.",
  "-registry.example",
  "rеgistry.example",
  "registry。example",
  "registry.example:0",
  "registry.example:99999",
  "registry.example:+443",
  "registry.example:443:80",
  "[::1",
  "::1",
  "[fe80::1%25lo]",
  "[fe80::1%lo]",
  "[::ffff:127.0.0.1]:80@registry.example",
  "[127.0.0.1]",
  "[::127.1]",
];

const spelled: readonly HostileRow[] = spellings.map((spelling) => ({
  name: `a registry spelled ${JSON.stringify(spelling)}`,
  reference: `${spelling}/acme/app:1`,
  // Without a dot or a colon it is no host but a part of a name at Docker Hub, which may have it or not.
  outcome: /^[a-z0-9]+$/.test(spelling) ? "served" : "bad_reference",
  ...(/^[a-z0-9]+$/.test(spelling) ? { credential: {}, reached: ["9.9.9.9"] } : {}),
}));

const localhost: readonly HostileRow[] = [
  "localhost",
  "LOCALHOST",
  "app.localhost",
  "localhost:5000",
  "127.0.0.1:5000",
  "[::1]:8080",
].map((host) => ({
  name: `a registry at ${host}`,
  reference: `${host}/acme/app:1`,
  dns: { localhost: [["127.0.0.1"]], "app.localhost": [["127.0.0.1"]] },
  outcome: "egress_refused",
  twin: {
    policy: { insecureHosts: new Set([host.toLowerCase()]) },
    outcome: "served",
    told: [`http://${host.toLowerCase()}`],
    reached: [host.startsWith("[") ? "::1" : "127.0.0.1"],
  },
}));

/** What a resolver should not say, and does when it is asked for a name that its owner has prepared. */
const oddAnswers: readonly string[] = [
  "127.1",
  "0x7f.0.0.1",
  "2130706433",
  "localhost",
  "fe80::1%lo",
  "::1%1",
  "8.8.8.8%lo",
  "8.8.8.8/32",
  "1.2.3.4.5",
  "8.8.8.8 ",
  "evil.example",
  "",
];

const odd: readonly HostileRow[] = oddAnswers.map((answer) => ({
  name: `a name for which DNS says ${JSON.stringify(answer)}`,
  dns: { "registry.example": [[answer]] },
  outcome: "egress_refused",
}));

const twice: HostileRow["act"] = async ({ clock, repository }) => {
  await repository().headManifest("1", signal);
  clock.pass(31_000);
  await repository().headManifest("1", signal);
};

const changing: readonly HostileRow[] = [
  ...["127.0.0.1", "169.254.169.254", "::1"].map((address) => ({
    name: `a name that leads to ${address} at the second look-up`,
    dns: { "registry.example": [["8.8.8.8"], [address]] },
    act: twice,
    outcome: "egress_refused",
    told: ["https://registry.example"],
    reached: ["8.8.8.8"],
    twin: {
      policy: { privateHosts: new Set(["registry.example"]) },
      outcome: "served",
      reached: ["8.8.8.8", address],
    },
  })),
  {
    name: "a name that leads elsewhere with every look-up, within one request",
    dns: { "registry.example": [["8.8.8.8"], ["127.0.0.1"]] },
    outcome: "served",
    told: ["https://registry.example"],
    reached: ["8.8.8.8"],
  },
  ...[
    ["10.0.0.1", "8.8.8.8"],
    ["8.8.8.8", "10.0.0.1"],
    ["::1", "169.254.169.254", "8.8.8.8"],
  ].map((mixed) => ({
    name: `a name that leads to ${mixed.join(", ")}`,
    dns: { "registry.example": [mixed] },
    outcome: "served",
    told: ["https://registry.example"],
    reached: ["8.8.8.8"],
  })),
  {
    name: "a name that leads nowhere",
    dns: { "registry.example": [[]] },
    outcome: "egress_refused",
  },
  {
    name: "a name whose token service moves to loopback",
    challenge: 'Bearer realm="https://registry.example/token"',
    dns: { "registry.example": [["8.8.8.8"], ["127.0.0.1"]] },
    act: twice,
    outcome: "egress_refused",
    told: ["https://registry.example"],
  },
];

export const hostRows: readonly HostileRow[] = [
  ...privateAddresses.map(literal),
  ...privateAddresses.map(led),
  ...spelled,
  ...localhost,
  ...odd,
  ...changing,
];
