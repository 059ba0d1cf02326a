import { describe, expect, test } from "bun:test";
import { checkName, checkOptions } from "./check-options.ts";
import { ContainerError } from "./error.ts";
import {
  type ContainerNetwork,
  type ContainerOptions,
  defaultOptions,
  type PublishedPort,
} from "./options.ts";

type Change = { readonly [Key in keyof ContainerOptions]?: unknown };

const port = (change: Partial<PublishedPort> = {}): PublishedPort => ({
  hostAddress: "127.0.0.1",
  hostPort: 8080,
  containerPort: 80,
  protocol: "tcp",
  ...change,
});
const tmpfs = (path: string, change: object = {}) => ({ path, sizeBytes: 65_536, mode: 0o1777, ...change });
const volume = (source: string, target: string) => ({ source, target, readOnly: false });
const check = (change: Change, network: ContainerNetwork = "private", env = {}) =>
  checkOptions({ ...defaultOptions, ...change } as ContainerOptions, network, env);

test("takes what a worker can start", () => {
  check({
    entrypoint: [],
    workingDirectory: "/srv/app",
    user: "app:1000",
    tmpfs: [tmpfs("/run"), tmpfs("/dev/shm")],
    volumes: [volume("cache", "/cache"), volume("/data", "/data/"), volume("cache", "/cache/again")],
    ports: [
      port(),
      port({ protocol: "udp" }),
      port({ hostPort: 0 }),
      port({ hostPort: 0 }),
      port({ hostAddress: "10.0.0.1" }),
    ],
    secrets: [
      { secretName: "db", variable: "DB" },
      { secretName: "db", path: "/run/secrets/db" },
    ],
    pidsLimit: 4_194_304,
    storageBytes: 2 ** 40,
    restart: { kind: "on-failure", retriesMax: 3 },
    stopTimeoutMs: 3_600_000,
    terminal: true,
  });
  check({}, "none");
  check({}, "host");
});

describe("refuses", () => {
  const refused: readonly (readonly [string, Change])[] = [
    ['working directory, "app", is not absolute', { workingDirectory: "app" }],
    ["working directory holds a NUL", { workingDirectory: "/a\0b" }],
    ["holds `.` or `..`", { workingDirectory: "/a/../b" }],
    ["longer than Linux takes", { workingDirectory: `/${"a".repeat(256)}` }],
    ["longer than Linux takes", { workingDirectory: "/abc".repeat(1024) }],
    ['":app" is no user', { user: ":app" }],
    ['"a:b:c" is no user', { user: "a:b:c" }],
    ["is no user", { user: "a\n" }],
    ['tmpfs, "tmp", is not absolute', { tmpfs: [tmpfs("tmp")] }],
    ["tmpfs is the root", { tmpfs: [tmpfs("//")] }],
    ["is the kernel's", { tmpfs: [tmpfs("/proc/self")] }],
    ["is the kernel's", { volumes: [volume("v", "/dev")] }],
    ["is the kernel's", { volumes: [volume("v", "/sys/")] }],
    ['size of the tmpfs "/t" is none', { tmpfs: [tmpfs("/t", { sizeBytes: 4095 })] }],
    ['size of the tmpfs "/t" is none', { tmpfs: [tmpfs("/t", { sizeBytes: 2 ** 60 })] }],
    ['mode of the tmpfs "/t" is none', { tmpfs: [tmpfs("/t", { mode: 0o10000 })] }],
    [
      'the target of a volume and the path of a tmpfs are both "/t"',
      { tmpfs: [tmpfs("/t")], volumes: [volume("v", "/t/")] },
    ],
    ['"../x" is neither a volume\'s name nor an absolute path', { volumes: [volume("../x", "/x")] }],
    ['"" is neither a volume\'s name', { volumes: [volume("", "/x")] }],
    ['source of a volume, "/a/../etc", holds', { volumes: [volume("/a/../etc", "/x")] }],
    [
      "there are 101 volumes; 100 are allowed",
      { volumes: Array.from({ length: 101 }, (_, at) => volume("v", `/${at}`)) },
    ],
    ["there are 101 published ports", { ports: Array.from({ length: 101 }, () => port({ hostPort: 0 })) }],
    [
      "there are 101 secrets",
      { secrets: Array.from({ length: 101 }, (_, at) => ({ secretName: "s", variable: `V${at}` })) },
    ],
    ["65536 is no port of a host", { ports: [port({ hostPort: 65_536 })] }],
    ["-1 is no port of a host", { ports: [port({ hostPort: -1 })] }],
    ["0 is no port of a container", { ports: [port({ containerPort: 0 })] }],
    ['"localhost" is no IPv4 address', { ports: [port({ hostAddress: "localhost" })] }],
    ["127.0.0.1:8080/tcp is published twice", { ports: [port(), port({ containerPort: 81 })] }],
    ["127.0.0.1:8080/tcp is published twice", { ports: [port({ hostAddress: "0.0.0.0" }), port()] }],
    ['"db" is neither a variable nor a file', { secrets: [{ secretName: "db" }] }],
    ['"db" is both a variable and a file', { secrets: [{ secretName: "db", variable: "A", path: "/a" }] }],
    ['"A=B" cannot name a variable', { secrets: [{ secretName: "db", variable: "A=B" }] }],
    ['"" cannot name a variable', { secrets: [{ secretName: "db", variable: "" }] }],
    [
      'variable "A" is given twice',
      { secrets: ["x", "y"].map((secretName) => ({ secretName, variable: "A" })) },
    ],
    ['variable "TAKEN" is given twice', { secrets: [{ secretName: "db", variable: "TAKEN" }] }],
    ['"" cannot name a secret', { secrets: [{ secretName: "", variable: "A" }] }],
    ["names no file", { secrets: [{ secretName: "db", path: "/run/" }] }],
    ["processes is none", { pidsLimit: -1 }],
    ["writable layer is none", { storageBytes: 1024 }],
    ["writable layer is none", { storageBytes: 2 ** 60 }],
    ["stop timeout is none", { stopTimeoutMs: 3_600_001 }],
    ["number of restarts is none", { restart: { kind: "on-failure", retriesMax: -1 } }],
    ["for on-failure, not for always", { restart: { kind: "always", retriesMax: 1 } }],
  ];
  for (const [told, change] of refused) {
    test(`what it tells with: ${told} (${JSON.stringify(change).slice(0, 60)})`, () => {
      const error = thrown(() => check(change, "private", { TAKEN: "hunter2" }));
      expect([error.code, error.next === undefined]).toEqual(["bad_spec", false]);
      expect(error.message).toContain(told);
      expect(`${error.message} ${error.next}`).not.toContain("hunter2");
    });
  }

  test("published ports where there is no network of the container's own", () => {
    expect(thrown(() => check({ ports: [port()] }, "none")).message).toContain("without a network");
    expect(thrown(() => check({ ports: [port()] }, "host")).message).toContain("the host's ports already");
  });

  test("names that are none, or that could be ids", () => {
    for (const name of ["web", "Web_2.a-b", "c-0123", "c-0123456789abcdeX", "a".repeat(63)]) checkName(name);
    for (const name of ["", "-a", ".a", "a b", "a/b", "ä", "a\n", "a".repeat(64)])
      expect(thrown(() => checkName(name)).message).toContain("cannot name a container");
    expect(thrown(() => checkName("c-0123456789abcdef")).message).toContain("looks like a container's id");
  });
});

function thrown(work: () => void): ContainerError {
  try {
    work();
  } catch (error) {
    if (error instanceof ContainerError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}
