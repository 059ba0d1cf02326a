import { Redacted } from "../std/redacted.ts";
import { privateAddresses, spellings } from "./hostile-hosts.test-kit.ts";
import { type HostileRow, type Means, signal } from "./hostile-row.test-kit.ts";

/** In the address, as in those of chats and pagers: whoever comes to know it may write there. */
const token = "the-secret-password";
const body = JSON.stringify({ type: "test" });

async function send({ client }: Means, url: string): Promise<void> {
  const { status } = await client.webhooks.post(new Redacted(url), {}, body, signal);
  if (status < 200 || status > 299) throw Object.assign(new Error("not taken"), { code: `status ${status}` });
}

/** A delivery to the address, which is the only one that may come to know the token in it. */
function to(url: string): Pick<HostileRow, "credential" | "act"> {
  return { credential: {}, act: (means) => send(means, url) };
}

const registryOf = (host: string): string => `${host}/acme/app:1`;
const bracketed = (address: string): string =>
  address.includes(":") ? new URL(`http://[${address}]`).host : address;

function literal([address, what, connectable]: (typeof privateAddresses)[number]): HostileRow[] {
  const host = bracketed(address);
  const row = (scheme: string): HostileRow => ({
    name: `a webhook at ${scheme}://${host} (${what})`,
    reference: registryOf(host),
    ...to(`${scheme}://${host}/${token}`),
    outcome: "egress_refused",
  });
  const policy = { insecureHosts: new Set([host]) };
  const twin = { policy, outcome: "served", told: [`http://${host}`], reached: [address] };
  return [row("https"), connectable === false ? row("http") : { ...row("http"), twin }];
}

function led([address, what, connectable]: (typeof privateAddresses)[number]): HostileRow {
  const policy = { privateHosts: new Set(["hooks.example"]) };
  const twin = { policy, outcome: "served", told: ["https://hooks.example"], reached: [address] };
  return {
    name: `a webhook at a name that leads to ${address} (${what})`,
    reference: registryOf("hooks.example"),
    dns: { "hooks.example": [[address]] },
    ...to(`https://hooks.example/${token}`),
    outcome: "egress_refused",
    ...(connectable === false ? {} : { twin }),
  };
}

/** Whether a spelling is, to a URL, just some name on the internet: the tenant may send there. */
function isPublicName(spelling: string): boolean {
  const url = URL.parse(`https://${spelling}/`);
  return url !== null && url.username === "" && url.hostname.includes("example");
}

const loopbackNames = { localhost: [["127.0.0.1"]], "localhost.": [["127.0.0.1"]] };

const spelled: readonly HostileRow[] = spellings
  .filter((spelling) => !isPublicName(spelling))
  .map((spelling) => ({
    name: `a webhook at a host spelled ${JSON.stringify(spelling)}`,
    dns: loopbackNames,
    ...to(`https://${spelling}/${token}`),
    outcome: "egress_refused",
  }));

const addresses: readonly string[] = [
  "http://hooks.example/plain",
  "HTTP://HOOKS.EXAMPLE/plain",
  "ftp://hooks.example/",
  "ws://hooks.example/",
  "wss://hooks.example/",
  "gopher://127.0.0.1:6379/_FLUSHALL",
  "file:///etc/passwd",
  "file://hooks.example/etc/passwd",
  "data:text/plain,hello",
  "javascript:alert(1)",
  "blob:https://hooks.example/1",
  "unix:/var/run/docker.sock",
  "https+unix://%2Fvar%2Frun%2Fdocker.sock/",
  "//hooks.example/",
  "hooks.example",
  "https://",
  "https:///",
  "",
  " ",
  "\0",
  `https://alice:${token}@hooks.example/`,
  `https://${token}@hooks.example/`,
  `https://hooks.example:443@127.0.0.1/${token}`,
  `https://hooks.example/${"x".repeat(2048)}`,
  "https://localhost/",
  "https://localhost:8443/",
  "https://127.0.0.1:8443/",
  "https://[::1]:8443/",
  "https://[::ffff:7f00:1]/",
  "https://[::ffff:10.0.0.1]:8443/",
];

const refused: readonly HostileRow[] = addresses.map((url) => ({
  name: `a webhook at ${JSON.stringify(url.slice(0, 60))}`,
  dns: loopbackNames,
  ...to(url),
  outcome: "egress_refused",
}));

const hooks = {
  reference: registryOf("hooks.example"),
  told: ["https://hooks.example"],
  reached: ["9.9.9.9"],
};
const address = `https://hooks.example/${token}`;

const sound: readonly HostileRow[] = [
  { name: "a webhook on the internet", ...hooks, ...to(address), outcome: "served" },
  {
    name: "a webhook at another port",
    reference: registryOf("hooks.example:8443"),
    told: ["https://hooks.example:8443"],
    reached: ["9.9.9.9"],
    ...to(`https://hooks.example:8443/${token}`),
    outcome: "served",
  },
  {
    name: "a webhook with a line in its address that would be a header",
    ...hooks,
    ...to(`https://hooks.example/\r\nHost: evil.example\r\n${token}`),
    answer: ({ headers }) => ({ status: headers.get("host") === "hooks.example" ? 200 : 500 }),
    outcome: "served",
  },
  {
    name: "a webhook with a name in its fragment",
    ...hooks,
    ...to(`${address}#@127.0.0.1/`),
    outcome: "served",
  },
  ...[
    ["10.0.0.1", "8.8.8.8"],
    ["::1", "169.254.169.254", "8.8.8.8"],
  ].map((mixed) => ({
    name: `a webhook at a name that leads to ${mixed.join(", ")}`,
    ...hooks,
    dns: { "hooks.example": [mixed] },
    reached: ["8.8.8.8"],
    ...to(address),
    outcome: "served",
  })),
];

const redirected: readonly HostileRow[] = [301, 302, 303, 307, 308].flatMap((status) =>
  ["https://127.0.0.1/", "http://169.254.169.254/latest/", "https://other.example/", `/again/${token}`].map(
    (location) => ({
      name: `a webhook that redirects by ${status} to ${location.replace(token, "itself")}`,
      ...hooks,
      ...to(address),
      answer: () => ({ status, headers: { location } }),
      outcome: `status ${status}`,
    }),
  ),
);

const changing: readonly HostileRow[] = ["127.0.0.1", "169.254.169.254", "::1"].flatMap((private_) => {
  const dns = { "hooks.example": [["8.8.8.8"], [private_]] };
  const reached = ["8.8.8.8"];
  return [
    {
      name: `a webhook at a name that leads to ${private_} at the second delivery`,
      ...hooks,
      dns,
      reached,
      credential: {},
      act: async (means: Means) => {
        await send(means, address);
        await send(means, address);
      },
      outcome: "egress_refused",
    },
    {
      name: `a webhook at a name that leads to ${private_} once it was checked`,
      reference: hooks.reference,
      dns,
      told: [],
      reached: [],
      credential: {},
      act: async (means: Means) => {
        await means.client.webhooks.check(new Redacted(address), signal);
        await send(means, address);
      },
      outcome: "egress_refused",
    },
    {
      name: `a webhook at a name that leads to ${private_} while its delivery is made`,
      ...hooks,
      dns,
      reached,
      ...to(address),
      outcome: "served",
    },
  ];
});

/** What is checked when a webhook is made is refused there, too. */
const checked: readonly HostileRow[] = [
  ["https://127.0.0.1/", {}],
  ["https://inside.example/", { "inside.example": [["10.0.0.1"]] }],
  ["http://hooks.example/", {}],
  ["https://u:p@hooks.example/", {}],
  [`https://hooks.example/${"x".repeat(2048)}`, {}],
].map(([url, dns]) => ({
  name: `a webhook that is made for ${String(url).slice(0, 40)}`,
  dns: dns as HostileRow["dns"] & object,
  credential: {},
  act: ({ client }) => client.webhooks.check(new Redacted(String(url)), signal),
  outcome: "egress_refused",
  reached: [],
}));

const answering: readonly HostileRow[] = [
  {
    name: "a webhook whose answer has no end",
    ...hooks,
    ...to(address),
    answer: () => ({ status: 200, endless: true }),
    outcome: "served",
  },
  {
    name: "a webhook whose answer sets a cookie and asks for a login",
    ...hooks,
    ...to(address),
    answer: () => ({ status: 401, headers: { "www-authenticate": 'Basic realm="x"', "set-cookie": "a=b" } }),
    outcome: "status 401",
  },
];

export const webhookRows: readonly HostileRow[] = [
  ...privateAddresses.flatMap(literal),
  ...privateAddresses.map(led),
  ...spelled,
  ...refused,
  ...sound,
  ...redirected,
  ...changing,
  ...checked,
  ...answering,
];
