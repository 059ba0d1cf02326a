import type { HostileReply } from "./hostile-internet.test-kit.ts";
import { type HostileRow, resolveImage, signal } from "./hostile-row.test-kit.ts";

const own = "https://registry.example";
const dns = {
  localhost: [["127.0.0.1"]],
  "inside.example": [["10.0.0.7"]],
  "mapped.example": [["::ffff:10.0.0.7"]],
};

/** Where a registry may not send anybody; the operator may list hosts that have one of these addresses. */
const inside: readonly (readonly [location: string, address: string])[] = [
  ["https://127.0.0.1/signed", "127.0.0.1"],
  ["https://127.0.0.1:8443/signed", "127.0.0.1"],
  ["https://2130706433/signed", "127.0.0.1"],
  ["https://0x7f.1/signed", "127.0.0.1"],
  ["https://0177.1/signed", "127.0.0.1"],
  ["https://127%E3%80%820%E3%80%820%E3%80%821/signed", "127.0.0.1"],
  ["https://[::1]/signed", "::1"],
  ["https://[64:ff9b::7f00:1]/signed", "64:ff9b::7f00:1"],
  ["https://[2002:7f00:1::]/signed", "2002:7f00:1::"],
  ["https://169.254.169.254/latest/meta-data/", "169.254.169.254"],
  ["https://[fd00:ec2::254]/latest/meta-data/", "fd00:ec2::254"],
  ["https://localhost/signed", "127.0.0.1"],
  ["https://inside.example/signed", "10.0.0.7"],
  ["https://mapped.example/signed", "10.0.0.7"],
  ["https://10.0.0.1/signed", "10.0.0.1"],
];

const insideRows: readonly HostileRow[] = inside.map(([location, address]) => ({
  name: `a redirect to ${location}`,
  location,
  dns,
  outcome: "egress_refused",
  told: [own],
  reached: ["8.8.8.8"],
  twin: {
    policy: { privateHosts: new Set([new URL(location).host]) },
    outcome: "served",
    told: [own],
    reached: [address, "8.8.8.8"].sort(),
  },
}));

const refused: readonly string[] = [
  "http://registry.example/v2/acme/app/manifests/1",
  "http://evil.example/signed",
  "http://169.254.169.254/latest/meta-data/",
  "http://127.0.0.1:5000/v2/",
  "https://alice:pw@evil.example/signed",
  "https://registry.example@evil.example/signed",
  "https://registry.example@127.0.0.1/signed",
  "ftp://registry.example/signed",
  "file:///etc/passwd",
  "javascript:alert(1)",
  "data:text/plain,hello",
  "gopher://evil.example/",
  "ws://registry.example/",
];

const refusedRows: readonly HostileRow[] = refused.map((location) => ({
  name: `a redirect to ${location}`,
  location,
  outcome: "egress_refused",
  told: [own],
  reached: ["8.8.8.8"],
}));

/** Other hosts are gone to, without the credential. */
const elsewhere: readonly string[] = [
  "https://evil.example/signed",
  "//evil.example/signed",
  "\\\\evil.example\\signed",
  "https:\\\\evil.example\\signed",
  "https://evil.example\\@registry.example/signed",
  "https://registry.example.evil.example/signed",
  "https://registry.example:8443/signed",
  "https://registry.example./signed",
  "https://sub.registry.example/signed",
  "https://r%D0%B5gistry.example/signed",
  "https://evil.example/v2/acme/app/manifests/1?again",
];

const elsewhereRows: readonly HostileRow[] = elsewhere.flatMap((location) =>
  [301, 307].map((status) => ({
    name: `a redirect by ${status} to ${location}`,
    location,
    status,
    outcome: location.includes("/v2/") ? "unauthorized" : "served",
    told: [own],
  })),
);

/** The way back from another host does not bring the credential back. */
const chains: readonly HostileRow[] = [
  {
    name: "a redirect to another host and back",
    location: "https://evil.example/back",
    answer: ({ url, headers }): HostileReply | undefined => {
      if (url.pathname === "/back")
        return { status: 307, headers: { location: "https://registry.example/told-or-not" } };
      if (url.pathname === "/told-or-not")
        return { status: headers.has("authorization") ? 200 : 403, body: "" };
      return undefined;
    },
    outcome: "denied",
    told: [own],
  },
  {
    name: "redirects from host to host, to loopback in the end",
    location: "https://one.example/next",
    answer: ({ url, origin }) => {
      if (url.pathname !== "/next") return undefined;
      const location = origin.includes("one") ? "https://two.example/next" : "https://127.0.0.1/signed";
      return { status: 302, headers: { location } };
    },
    outcome: "egress_refused",
    told: [own],
  },
  {
    name: "redirects in circles",
    location: "https://evil.example/circle",
    answer: ({ url }) =>
      url.pathname === "/circle" ? { status: 302, headers: { location: "/circle" } } : undefined,
    outcome: "protocol",
    told: [own],
  },
  {
    name: "a redirect to a name that moves to loopback",
    location: "https://moving.example/signed",
    dns: { "moving.example": [["9.9.9.9"], ["127.0.0.1"]] },
    act: async ({ clock, repository }) => {
      await repository().headManifest("1", signal);
      clock.pass(31_000);
      await repository().headManifest("1", signal);
    },
    outcome: "egress_refused",
    told: [own],
    reached: ["8.8.8.8", "9.9.9.9"],
  },
  { name: "a redirect to no URL", location: "https://", outcome: "protocol", told: [own] },
  {
    name: "a redirect to an impossible port",
    location: "https://evil.example:99999/",
    outcome: "protocol",
    told: [own],
  },
  {
    name: "a registry that redirects before it has seen a credential",
    answer: ({ url }) =>
      url.pathname.startsWith("/v2/")
        ? { status: 307, headers: { location: "https://evil.example/v3" } }
        : undefined,
    outcome: "served",
  },
  {
    name: "another host that asks for the credential after a redirect",
    location: "https://evil.example/asks",
    answer: ({ url }) =>
      url.pathname === "/asks"
        ? { status: 401, headers: { "www-authenticate": 'Basic realm="r"' } }
        : undefined,
    outcome: "unauthorized",
    told: [own],
  },
  {
    name: "another host that names a token service after a redirect",
    location: "https://evil.example/asks",
    answer: ({ url }) =>
      url.pathname === "/asks"
        ? { status: 401, headers: { "www-authenticate": 'Bearer realm="https://evil.example/token"' } }
        : undefined,
    outcome: "unauthorized",
    told: [own],
  },
];

/** Answers without an end: given up, whoever sends them. */
const endless: readonly HostileRow[] = [
  ["a token", "too_large", "/token", { status: 200 }],
  ["the refusal of a token", "unauthorized", "/token", { status: 401 }],
  ["the head of a token", "unreachable", "/token", { status: 200, inHead: true }],
  [
    "a manifest",
    "too_large",
    "/v2/",
    { status: 200, headers: { "content-type": "application/vnd.oci.image.manifest.v1+json" } },
  ],
  ["a refusal", "denied", "/v2/", { status: 403 }],
  ["a failure", "unreachable", "/v2/", { status: 500 }],
  [
    "a redirect",
    "digest_mismatch",
    "/v2/",
    { status: 307, headers: { location: "https://registry.example/signed" } },
  ],
  [
    "a challenge",
    "unauthorized",
    "/v2/",
    { status: 401, headers: { "www-authenticate": 'Basic realm="r"' } },
  ],
].map(([what, outcome, path, reply]) => ({
  name: `${what} without an end`,
  challenge: 'Bearer realm="https://registry.example/token"',
  answer: ({ url, headers }) =>
    url.pathname.startsWith(path as string) && (path !== "/v2/" || headers.has("authorization"))
      ? { ...(reply as HostileReply), endless: true }
      : undefined,
  act: resolveImage,
  outcome: outcome as string,
  told: [own],
}));

/** Of a mirror only what leads away from it is judged. */
export const redirectRows: readonly HostileRow[] = [
  ...insideRows,
  ...refusedRows,
  ...elsewhereRows,
  ...chains,
  ...endless,
];
