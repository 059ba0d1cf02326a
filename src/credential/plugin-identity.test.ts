import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { parseGoDuration } from "./plugin-answer.ts";
import { type PluginIdentitySettings, pluginIdentity } from "./plugin-identity.ts";
import type { RegistryAuthorization } from "./provider.ts";

const registry = "registry.acme.test:5000";
const hourMs = 3_600_000;
let folder: string;
let log: string;
let nowMs = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "oci-node-plugin-"));
  log = join(folder, "log");
});
afterAll(() => rm(folder, { recursive: true, force: true }));
beforeEach(async () => {
  nowMs = Date.parse("2026-01-01T00:00:00Z");
  await rm(log, { force: true });
});

/** A plugin that is a script; each run appends the request and the names of its variables to the log. */
async function plugin(body: string, change: Partial<PluginIdentitySettings> = {}) {
  const path = join(folder, `plugin-${crypto.randomUUID()}`);
  const script = `#!/bin/sh\nrequest=$(cat)\necho "$request $(env | cut -d= -f1 | sort | tr '\\n' ' ')" >> ${log}\n${body}\n`;
  await writeFile(path, script);
  await chmod(path, 0o755);
  const settings: PluginIdentitySettings = {
    command: [path],
    env: {},
    matchImages: ["*.acme.test:5000"],
    timeoutMs: 10_000,
    apiVersion: "credentialprovider.kubelet.k8s.io/v1",
    ...change,
  };
  return pluginIdentity("prod", settings, { now: () => nowMs });
}

/** A script that prints an answer; passwords are numbered by how often it ran. */
function answering(answer: { auth?: unknown; type?: string; duration?: string; version?: string }): string {
  const document = {
    apiVersion: `credentialprovider.kubelet.k8s.io/${answer.version ?? "v1"}`,
    kind: "CredentialProviderResponse",
    cacheKeyType: answer.type ?? "Registry",
    ...(answer.duration === undefined ? {} : { cacheDuration: answer.duration }),
    auth: answer.auth ?? { "*.acme.test:5000": { username: "u", password: "p-RUN" } },
  };
  return `cat <<END\n${JSON.stringify(document).replaceAll("RUN", `$(wc -l < ${log})`)}\nEND`;
}

async function runs(): Promise<string[]> {
  return (await readFile(log, "utf8").catch(() => "")).split("\n").filter((line) => line !== "");
}

function shown(authorization: RegistryAuthorization): string {
  return authorization.kind === "basic"
    ? `${authorization.username}:${authorization.password.expose().trim()}`
    : authorization.kind;
}

async function failure(work: Promise<unknown>): Promise<{ code: string; message: string; next: string }> {
  return await work.then(
    () => Promise.reject(new Error("it succeeded")),
    (thrown) => thrown,
  );
}

/** Waits until a process is gone, or a zombie that nobody collects here. */
async function ended(pid: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const state = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "gone");
    if (state === "gone" || / [ZX] /.test(state)) return;
    if (performance.now() > deadline) throw new Error(`process ${pid} still runs`);
    await new Promise(setImmediate);
  }
}

describe("a plugin", () => {
  test("is asked with the kubelet's request for the very image, and gets nothing of the node's environment", async () => {
    const identity = await plugin(answering({ duration: "12h0m0s" }), { env: { PROFILE: "prod" } });
    const provider = identity.provider(registry, "team/app");
    expect(shown(await provider.authorization())).toBe("u:p-1");
    const [run = ""] = await runs();
    const request = run.slice(0, run.indexOf("}") + 1);
    expect(JSON.parse(request)).toEqual({
      apiVersion: "credentialprovider.kubelet.k8s.io/v1",
      kind: "CredentialProviderRequest",
      image: `${registry}/team/app`,
    });
    const variables = run.slice(request.length).trim().split(" ");
    expect(variables.filter((name) => !["PWD", "OLDPWD", "SHLVL", "_"].includes(name))).toEqual([
      "LANG",
      "PATH",
      "PROFILE",
    ]);
  });

  test("is asked in the version of the protocol that the operator names, and may answer in any", async () => {
    for (const version of ["v1alpha1", "v1beta1", "v1"] as const) {
      const apiVersion = `credentialprovider.kubelet.k8s.io/${version}` as const;
      const identity = await plugin(answering({ version }), { apiVersion });
      expect(shown(await identity.provider(registry).authorization())).toStartWith("u:p-");
      expect((await runs()).at(-1)).toContain(`"apiVersion":"${apiVersion}"`);
    }
  });

  test("is not asked for an image that the operator's patterns do not name", async () => {
    const identity = await plugin(answering({}), { matchImages: ["registry.acme.test:5000/team"] });
    expect(() => identity.provider("ghcr.io")).toThrow("the identity prod is not for ghcr.io");
    expect(() => identity.provider(registry, "other/app")).toThrow("is not for");
    identity.provider(registry);
    identity.provider(registry, "team/app");
    expect(await runs()).toEqual([]);
  });
});

describe("a plugin that is asked for many images at once", () => {
  test("runs a few times at once, and not at all for what the first answers bring", async () => {
    const busy = `ls ${folder}/busy-* 2>/dev/null | wc -l >> ${folder}/most; rm ${folder}/busy-$$`;
    const slow = `touch ${folder}/busy-$$; sleep 0.2; ${busy}; ${answering({ duration: "1h" })}`;
    const identity = await plugin(slow);
    const all = Array.from({ length: 60 }, (_, n) => identity.provider(registry, `team/app${n}`));
    await Promise.all(all.map((provider) => provider.authorization()));
    const most = (await readFile(join(folder, "most"), "utf8")).trim().split("\n").map(Number);
    expect(Math.max(...most)).toBeLessThanOrEqual(8);
    expect(await runs()).toHaveLength(8);
  });

  test("says that it is busy rather than to let ever more wait", async () => {
    const identity = await plugin(`sleep 30`, { timeoutMs: 40 });
    const asked = Array.from({ length: 400 }, (_, n) =>
      failure(identity.provider(registry, `team/app${n}`).authorization()),
    );
    const busy = await asked.at(-1);
    expect(busy).toMatchObject({ code: "provider_unreachable" });
    expect(busy?.message).toContain("is asked for too many images at once");
    const all = await Promise.all(asked);
    expect(all.filter(({ message }) => message.includes("did not answer")).length).toBe(8 + 256);
  });
});

describe("a plugin's answer", () => {
  test("is chosen by the kubelet's order: the longest with the same beginning first, globs last", async () => {
    const auth = {
      "*.acme.test:5000": { username: "glob", password: "p" },
      "registry.acme.test:5000": { username: "host", password: "p" },
      "https://registry.acme.test:5000/team": { username: "team", password: "p" },
      "registry.acme.test": { username: "no port", password: "p" },
    };
    const identity = await plugin(answering({ auth, type: "Image" }));
    const of = async (repository: string) =>
      shown(await identity.provider(registry, repository).authorization());
    expect(await of("team/app")).toBe("team:p");
    expect(await of("other/app")).toBe("host:p");
  });

  test("serves the requests of a moment, however short its life is said to be", async () => {
    const provider = (await plugin(answering({ duration: "1ns" }))).provider(registry, "team/app");
    for (const _ of [1, 2, 3]) expect(shown(await provider.authorization())).toBe("u:p-1");
    nowMs += 1_000;
    expect(shown(await provider.authorization())).toBe("u:p-2");
  });

  test("is not believed to be good for ever", async () => {
    const identity = await plugin(answering({ duration: "99999999999999h" }));
    const authorization = await identity.provider(registry).authorization();
    if (authorization.kind !== "basic") throw new Error("not a password");
    expect(authorization.expiresAt?.toISOString()).toBe("2026-01-31T00:00:00.000Z");
  });

  test("may name Docker Hub as its first version did", async () => {
    const auth = { "https://index.docker.io/v1/": { username: "hub", password: "p" } };
    const identity = await plugin(answering({ auth }), { matchImages: ["docker.io"] });
    expect(shown(await identity.provider("docker.io", "library/app").authorization())).toBe("hub:p");
  });

  test.each([
    ["Image", 3],
    ["Registry", 2],
    ["Global", 1],
  ] as const)("is kept by %s", async (type, expected) => {
    const auth = { "*.acme.test:5000": { username: "u", password: "p-RUN" } };
    const identity = await plugin(answering({ auth, type, duration: "1h" }));
    for (let round = 0; round < 2; round += 1) {
      await identity.provider(registry, "a").authorization();
      await identity.provider(registry, "b").authorization();
      await identity.provider("other.acme.test:5000", "a").authorization();
    }
    expect(await runs()).toHaveLength(expected);
  });

  test("is renewed at half of its time, by one run however many wait, and counts to its end when that fails", async () => {
    const failing = join(folder, "failing");
    const identity = await plugin(`[ -e ${failing} ] && exit 1\n${answering({ duration: "2h" })}`);
    const provider = identity.provider(registry);
    const many = () => Promise.all(Array.from({ length: 50 }, () => provider.authorization()));
    const [first] = await many();
    expect(first).toMatchObject({ kind: "basic", expiresAt: new Date(nowMs + 2 * hourMs) });
    expect(await runs()).toHaveLength(1);
    nowMs += hourMs - 1;
    await many();
    expect(await runs()).toHaveLength(1);
    nowMs += 1;
    await writeFile(failing, "");
    expect(shown(await provider.authorization())).toBe("u:p-1");
    nowMs += hourMs;
    expect(await failure(provider.authorization())).toMatchObject({ code: "provider_failed" });
    await rm(failing);
    expect(shown(await provider.authorization())).toBe("u:p-4");
  });

  test("is asked for anew when the registry refused it", async () => {
    const identity = await plugin(answering({ duration: "2h" }));
    const provider = identity.provider(registry);
    expect(shown(await provider.authorization())).toBe("u:p-1");
    expect(shown(await provider.authorization(undefined, { refresh: true }))).toBe("u:p-2");
    expect(shown(await provider.authorization())).toBe("u:p-2");
  });

  test("that is not to be kept serves the requests of one pull, under an end by which it is asked for again", async () => {
    for (const duration of [undefined, "0s"]) {
      const before = (await runs()).length;
      const identity = await plugin(answering(duration === undefined ? {} : { duration }));
      const provider = identity.provider(registry, "app");
      const one = await provider.authorization();
      expect(one).toMatchObject({ expiresAt: new Date(nowMs + 600_000) });
      await provider.authorization();
      expect((await runs()).length).toBe(before + 1);
      nowMs += 60_000;
      await provider.authorization();
      expect((await runs()).length).toBe(before + 2);
    }
  });
});

describe("a plugin that fails", () => {
  const secret = "hunter2-canary";
  const whole = '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse"';
  test.each([
    ["with an exit code", `echo ${secret} >&2; echo ${secret}; exit 3`, "ended with exit code 3"],
    ["with no JSON", `echo ${secret}`, "(the document)"],
    ["with nothing", "exit 0", "(the document)"],
    ["with another kind", `echo '{"apiVersion":"v1","kind":"${secret}"}'`, "(apiVersion)"],
    ["with an unknown key type", `echo '${whole},"cacheKeyType":"${secret}"}'`, "(cacheKeyType)"],
    [
      "with a duration that is none",
      `echo '${whole},"cacheKeyType":"Image","cacheDuration":"${secret}"}'`,
      "(cacheDuration)",
    ],
    [
      "with a negative duration",
      `echo '${whole},"cacheKeyType":"Image","cacheDuration":"-5m"}'`,
      "(cacheDuration)",
    ],
    [
      "with a password of many lines",
      `printf %s '${whole},"cacheKeyType":"Image","auth":{"a":{"password":"a\\nb"}}}'`,
      "(auth)",
    ],
    [
      "with no credential",
      `echo '${whole},"cacheKeyType":"Image","auth":null}'`,
      `has no credential for ${registry}/app`,
    ],
    [
      "with one for others",
      answering({ auth: { "ghcr.io": { username: "u", password: secret } } }),
      "has no credential for",
    ],
    ["with too much", "head -c 70000 /dev/zero", "answers with more than 64 KiB"],
  ])("%s is told without its words", async (_, body, expected) => {
    const identity = await plugin(body);
    const error = await failure(identity.provider(registry, "app").authorization());
    expect(error.code).toBe("provider_failed");
    expect(error.message).toContain("the plugin of the identity prod");
    expect(error.message).toContain(expected);
    expect(error.next).toBeString();
    expect(inspect(error, { depth: 6 })).not.toContain(secret);
  });

  test("by not ending is killed with all that it started", async () => {
    const pids = join(folder, "pids");
    const identity = await plugin(`sleep 1000 & echo $! > ${pids}; echo $$ >> ${pids}; wait`, {
      timeoutMs: 500,
    });
    const error = await failure(identity.provider(registry).authorization());
    expect(error).toMatchObject({ code: "provider_unreachable" });
    expect(error.message).toContain("did not answer within 0.5 s");
    for (const pid of (await readFile(pids, "utf8")).trim().split("\n")) await ended(pid);
  });

  test("to start is told by its path", async () => {
    const identity = await plugin("", { command: ["/none/such/plugin"] });
    const error = await failure(identity.provider(registry).authorization());
    expect(error.message).toContain("could not be started");
    expect(error.next).toContain("/none/such/plugin");
  });
});

test.each([
  ["0", 0],
  ["0s", 0],
  ["12h0m0s", 12 * hourMs],
  ["1.5h", 1.5 * hourMs],
  ["5m30s", 330_000],
  ["250ms", 250],
  ["5", Number.NaN],
  ["", Number.NaN],
  ["-1h", Number.NaN],
  ["1d", Number.NaN],
])("the duration %p of Go has %p ms", (text, expected) => {
  expect(parseGoDuration(text)).toBe(expected);
});
