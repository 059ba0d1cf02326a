import { type HostileRow, refreshToken } from "./hostile-row.test-kit.ts";

const registry = "registry.example";
const registryOrigin = `https://${registry}`;
const bearer = (realm: string): string =>
  `Bearer realm="${realm}",service="s",scope="repository:acme/app:pull"`;

/** Token services that a registry may not name; the operator may approve those that have a host. */
const foreign: readonly (readonly [realm: string, what: string])[] = [
  ["https://evil.example/token", "another host"],
  ["https://registry.example.evil.example/token", "a host that begins like it"],
  ["https://evilregistry.example/token", "a host that ends like it"],
  ["https://auth.registry.example/token", "a host below it"],
  ["https://example/token", "a host above it"],
  ["https://registry-example/token", "a host that looks like it"],
  ["https://registry.example.:443/token", "its name with a dot at the end"],
  ["https://registry.example:8443/token", "another port of it"],
  ["https://evil.example/registry.example/token", "its name in a path"],
  ["https://evil.example/token?registry.example", "its name in a query"],
  ["https://evil.example/token#registry.example", "its name in a fragment"],
  ["https://evil.example\\\\@registry.example/token", "its name behind a backslash"],
  ["https:evil.example/token", "a host without slashes"],
  ["https:///evil.example/token", "a host with slashes too many"],
  ["https://r%D0%B5gistry.example/token", "a homograph"],
  ["https://xn--rgistry-2fg.example/token", "a homograph's plain form"],
  ["https://registry.exam\tple.evil.example/token", "a name with a tab in it"],
  ["https://gitlab.com/jwt/auth?token", "another registry's token service"],
  ["https://auth.docker.io/token", "another registry's token service"],
];

const approved = (realm: string): HostileRow["policy"] => ({
  realmHosts: new Map([[registry, [new URL(realm).host]]]),
});

const foreignRows: readonly HostileRow[] = foreign.flatMap(([realm, what]) => {
  const row = { challenge: bearer(realm), outcome: "egress_refused", told: [] };
  const unescaped = realm.replaceAll("\\\\", "\\");
  return [
    {
      ...row,
      name: `a realm that is ${what} (${realm})`,
      twin: {
        policy: approved(unescaped) ?? {},
        outcome: "served",
        told: [new URL(unescaped).origin, registryOrigin].sort(),
      },
    },
    { ...row, name: `a realm that is ${what}, for a refresh token (${realm})`, credential: refreshToken },
  ];
});

/** What no operator can approve. */
const impossible: readonly (readonly [realm: string, what: string])[] = [
  ["https://alice@registry.example/token", "its host with a user name"],
  ["https://registry.example@evil.example/token", "another host with its name as a user"],
  ["https://registry.example:443@evil.example/token", "another host with its name and port as a user"],
  ["http://registry.example/token", "its host without encryption"],
  ["http://evil.example/token", "another host without encryption"],
  ["ftp://registry.example/token", "another scheme"],
  ["file:///etc/passwd", "a file"],
  ["javascript:alert(1)", "a program"],
  ["data:application/json,{}", "the answer itself"],
  ["ws://registry.example/token", "a web socket"],
  ["blob:https://registry.example/token", "a blob"],
  ["//registry.example/token", "a host without a scheme"],
  ["/token", "a path"],
  ["registry.example/token", "a name"],
  ["", "empty"],
  ["https://", "no host"],
  ["https://registry.example:99999/token", "an impossible port"],
  ["https://registry.exa mple/token", "a name with a space"],
  ["https://registry.example%2f@evil.example/token", "a name with a slash in disguise"],
  ["https://[::1/token", "half an address"],
];

const impossibleRows: readonly HostileRow[] = impossible.map(([realm, what]) => ({
  name: `a realm that is ${what} (${realm})`,
  challenge: bearer(realm),
  outcome: "egress_refused",
}));

/** Where nobody's token service is; asked without a credential, so that only the address is in question. */
const inside: readonly string[] = [
  "https://127.0.0.1/token",
  "https://2130706433/token",
  "https://0x7f.1/token",
  "https://[::1]/token",
  "https://[::ffff:169.254.169.254]/token",
  "https://169.254.169.254/latest/api/token",
  "https://localhost/token",
  "https://inside.example/token",
  "https://10.0.0.1:8443/token",
  "http://169.254.169.254/latest/api/token",
];
const dns = { localhost: [["127.0.0.1"]], "inside.example": [["10.0.0.7"]] };

const insideRows: readonly HostileRow[] = inside.flatMap((realm) => {
  const { host, protocol } = new URL(realm);
  const plain = protocol === "http:";
  return [
    {
      name: `a realm inside, for nobody (${realm})`,
      credential: {},
      challenge: bearer(realm),
      dns,
      outcome: "egress_refused",
      twin: {
        policy: plain ? { insecureHosts: new Set([host]) } : { privateHosts: new Set([host]) },
        outcome: "served",
        told: [registryOrigin],
        reached: [
          "8.8.8.8",
          (dns as Record<string, string[][]>)[host]?.[0]?.[0] ??
            new URL(realm).hostname.replace(/^\[|\]$/g, "").replace("::ffff:a9fe:a9fe", "169.254.169.254"),
        ],
      },
    },
    {
      name: `a realm inside that was approved by its name only (${realm})`,
      challenge: bearer(realm),
      dns,
      policy: approved(realm) ?? {},
      outcome: "egress_refused",
    },
  ];
});

const redirecting = (status: number, location: string): HostileRow => ({
  name: `a token service that redirects by ${status} to ${location}`,
  challenge: bearer("https://registry.example/token"),
  answer: ({ url, origin }) =>
    url.pathname === "/token" && origin === registryOrigin ? { status, headers: { location } } : undefined,
  outcome: "egress_refused",
  told: [registryOrigin],
  reached: ["8.8.8.8"],
});

const several: readonly HostileRow[] = [
  ...[301, 302, 303, 307, 308].map((status) => redirecting(status, "https://evil.example/token")),
  redirecting(307, "https://registry.example/token/again"),
  redirecting(307, "http://169.254.169.254/latest/api/token"),
  {
    ...redirecting(307, "https://evil.example/token"),
    name: "a token service that redirects a refresh token",
    credential: refreshToken,
  },
  {
    name: "two realms, the wrong one first",
    challenge: `${bearer("https://evil.example/token")}, ${bearer("https://registry.example/token")}`,
    outcome: "egress_refused",
  },
  {
    name: "two realms, the wrong one second",
    challenge: `${bearer("https://registry.example/token")}, ${bearer("https://evil.example/token")}`,
    outcome: "served",
    told: [registryOrigin],
    reached: ["8.8.8.8"],
  },
  {
    name: "a realm given twice in one challenge",
    challenge: `Bearer realm="https://registry.example/token",realm="https://evil.example/token"`,
    outcome: "unauthorized",
  },
  {
    name: "a wrong realm beside Basic",
    challenge: `${bearer("https://evil.example/token")}, Basic realm="r"`,
    outcome: "served",
    told: [registryOrigin],
    reached: ["8.8.8.8"],
  },
  {
    name: "a Basic challenge whose realm is a URL of another host",
    challenge: `Basic realm="https://evil.example/token"`,
    outcome: "served",
    told: [registryOrigin],
    reached: ["8.8.8.8"],
  },
  {
    name: "a realm with a user name that is empty",
    challenge: bearer("https://:@registry.example/token"),
    outcome: "served",
    told: [registryOrigin],
    reached: ["8.8.8.8"],
  },
  {
    name: "a realm that a quotation ends early",
    challenge: `Bearer realm="https://registry.example/token\\", realm="https://evil.example/token"`,
    outcome: "served",
    told: [registryOrigin],
    reached: ["8.8.8.8"],
  },
];

/** Registries with a token service elsewhere: theirs is right, and only theirs. */
const known: readonly (readonly [reference: string, api: string, right: string, wrong: readonly string[]])[] =
  [
    [
      "docker.io/acme/app:1",
      "registry-1.docker.io",
      "https://auth.docker.io",
      [
        "https://auth.docker.io.evil.example/token",
        "https://auth.docker.io:8443/token",
        "https://auth-docker.io/token",
        "https://authn.nvidia.com/token",
        "http://auth.docker.io/token",
        "https://auth.docker.io@evil.example/token",
        "https://docker.io/token",
        "https://index.docker.io/token",
      ],
    ],
    [
      "registry.gitlab.com/acme/app:1",
      "registry.gitlab.com",
      "https://gitlab.com",
      ["https://gitlab.com.evil.example/token", "https://gitlab.org/token"],
    ],
    [
      "nvcr.io/acme/app:1",
      "nvcr.io",
      "https://authn.nvidia.com",
      ["https://nvidia.com/token", "https://authn.nvidia.com.evil.example/token"],
    ],
    ["registry.gitlab.com:8443/acme/app:1", "registry.gitlab.com:8443", "", ["https://gitlab.com/token"]],
  ];

const knownRows: readonly HostileRow[] = known.flatMap(([reference, api, right, wrong]) =>
  wrong.map((realm) => ({
    name: `${api} with the realm ${realm}`,
    reference,
    challenge: bearer(realm),
    outcome: "egress_refused",
    ...(right === ""
      ? {}
      : {
          twin: {
            challenge: bearer(`${right}/token`),
            outcome: "served",
            told: [right, `https://${api}`].sort(),
          },
        }),
  })),
);

export const realmRows: readonly HostileRow[] = [
  ...foreignRows,
  ...impossibleRows,
  ...insideRows,
  ...several,
  ...knownRows,
];
