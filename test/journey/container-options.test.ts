import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Container, World } from "../kit/world.ts";

interface Event {
  readonly container: string;
  readonly name: string | null;
  readonly message: string;
}

let world: World;
let dir: string;
let image: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-options-"));
  const config = join(dir, "config.toml");
  await mkdir(join(dir, "shared"));
  await writeFile(join(dir, "shared/of-the-host"), "from the host\n");
  const allowed = [
    "[workspaces.default]",
    'publish = ["127.0.0.1:20000-40000"]',
    `host_paths = ["${join(dir, "shared")}:ro"]`,
    "",
  ];
  await writeFile(config, allowed.join("\n"), { mode: 0o600 });
  world = await World.start({ node: { args: ["--config", config] } });
  image = (await world.build("options/app:1")).id;
}, 120_000);
afterAll(async () => {
  await world.stop();
  await rm(dir, { recursive: true, force: true });
});

const node = () => world.node;
const inspect = (container: string) => node().json<Container>(["inspect", container]);

/** What a command is refused with. */
async function refusal(args: readonly string[]): Promise<string> {
  const { code, stderr } = await node().cli(args);
  return `${code}: ${stderr.replace(/^oci-node: /, "")}`;
}

const secretValue = "s3cret-of-the-database";
const script = `
echo "$(id -u):$(id -g) in $(pwd) $A $B $C\${MISSING-}"
touch /not-here 2>/dev/null || echo read-only
echo "$DB_PASSWORD; $(cat /run/secrets/db) $(stat -c '%a %u' /run/secrets/db)"
echo kept > /scratch/file && stat -c %a /scratch && cat /scratch/file
exec busybox httpd -f -p 8080 -h /scratch
`;

test("runs as its flags say, is reached at the port that it was given, and tells what it is", async () => {
  const envFile = join(dir, "app.env");
  await writeFile(envFile, "# of the application\nA=from-file\nB=from-file\nC\nMISSING\n");
  const flags = ["--name", "web", "--env-file", envFile, "-e", "B=from-flag", "-p", "8080", "--user", "app"];
  const more = ["--workdir", "/made/here", "--read-only", "--tmpfs", "/scratch:size=1Mi,mode=1777"];
  const limits = ["--pids-limit", "50", "--memory", "64Mi", "--cpu", "0.5", "--stop-timeout", "1"];
  await node().ok(["secret", "create", "db", "--opaque"], { stdin: secretValue });
  const secrets = ["--secret-env", "db=DB_PASSWORD", "--secret-file", "db"];
  const program = [...secrets, "--entrypoint", "sh", image, "--", "-c", script];
  const args = ["run", "-d", ...flags, ...more, ...limits, "--restart", "on-failure:2", ...program];
  const id = await node().ok(args, { env: { C: "the caller's" } });
  await world.reaches(id, "running");
  const web = await inspect("web");
  expect(web).toMatchObject({
    id,
    name: "web",
    network: "private",
    restarts: 0,
    cpuMillis: 500,
    memoryBytes: 64 * 1024 ** 2,
    options: {
      entrypoint: ["sh"],
      workingDirectory: "/made/here",
      user: "app",
      readOnly: true,
      tmpfs: [{ path: "/scratch", sizeBytes: 1024 ** 2, mode: "1777" }],
      pidsLimit: 50,
      restart: "on-failure:2",
      secrets: [
        { secret: "db", variable: "DB_PASSWORD", path: null },
        { secret: "db", variable: null, path: "/run/secrets/db" },
      ],
      stopTimeoutMs: 1_000,
    },
  });
  for (const hidden of ["from-f", secretValue]) expect(JSON.stringify(web)).not.toContain(hidden);
  const [port] = web.ports;
  expect(port).toMatchObject({ hostAddress: "127.0.0.1", containerPort: 8080, protocol: "tcp" });
  expect(port?.hostPort).toBeWithin(20_000, 40_001);
  expect(web.address).toMatch(/^10\.210\./);
  const url = `http://127.0.0.1:${port?.hostPort}/file`;
  expect(await fetchSoon(url)).toBe("kept\n");
  expect(await node().ok(["logs", "web"])).toBe(
    `1000:1000 in /made/here from-file from-flag the caller's\nread-only\n${secretValue}; ${secretValue} 400 1000\n1777\nkept`,
  );
  const table = await node().ok(["ps"]);
  expect(table).toContain(`127.0.0.1:${port?.hostPort}->8080`);
  expect(table).toMatch(new RegExp(`^${id} +web `, "m"));
});

test("a name is taken until its container is removed, which ends it only when forced", async () => {
  const taken = await refusal(["run", "-d", "--name", "web", image]);
  expect(taken).toContain("has the name web already");
  expect(taken).toContain("oci-node rm web");
  expect(await refusal(["rm", "web"])).toMatch(/^1: container c-\w+ is running\n .*oci-node stop/);
  const { id } = await inspect("web");
  const following = node().start(["events", "--json", "-f", "web"]);
  await following.waitFor(/→ running/);
  const waiting = node().cli(["wait", "web"]);
  expect(await node().ok(["stop", "web"])).toBe(id);
  expect((await waiting).stdout).toMatch(/^(0|143|137)\n$/);
  expect(await following.child.exited).toBe(0);
  const told = following.output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Event);
  expect(new Set(told.map(({ container, name }) => `${container} ${name}`))).toEqual(new Set([`${id} web`]));
  expect(told.at(-1)?.message).toMatch(/→ stopped/);
  expect(await node().ok(["events", "web", "--since", "10m"])).toContain("pending → scheduled");

  const outputOf = new Bun.Glob(`**/logs/${id}.log*`);
  const output = () => Array.fromAsync(outputOf.scan(node().dataDir));
  expect(await output()).not.toEqual([]);
  expect(await node().ok(["rm", "web"])).toBe(id);
  expect(await output()).toEqual([]);
  for (const command of ["inspect", "logs", "events", "rm"])
    expect(await refusal([command, "web"])).toStartWith("1: no container web\n");
  const again = await node().ok(["run", "-d", "--name", "web", image, "--", "sleep", "600"]);
  expect(await node().ok(["rm", "-f", "web", "web"]).catch(String)).toContain("no container web");
  expect(await refusal(["inspect", again])).toContain("no container");
});

test("--rm leaves nothing of a container but its exit code", async () => {
  const before = await node().containerIds();
  const { code, stdout } = await node().cli([
    "run",
    "--rm",
    "--network",
    "none",
    image,
    "--",
    "exit-with",
    "3",
  ]);
  expect([code, stdout]).toEqual([3, "leaving with 3\n"]);
  expect(await node().containerIds()).toEqual(before);
});

test("what cannot be, or is not allowed, is told before anything is made", async () => {
  const before = await node().containerIds();
  const run = (...flags: string[]) => refusal(["run", "-d", ...flags, image]);
  expect(await run("--name", "c-0123456789abcdef")).toStartWith('125: "c-0123456789abcdef" looks like');
  expect(await run("-p", "80:80")).toContain("publish 127.0.0.1:80\n  It may publish 127.0.0.1:20000-40000");
  expect(await run("-p", "30000:80", "-p", "30000:81")).toContain("published twice");
  expect(await run("--network", "none", "-p", "80")).toContain("without a network");
  expect(await run("--network", "host")).toContain("does not allow this workspace the host's network");
  expect(await run("-v", "/etc:/host")).toContain("directory /etc of workers' hosts");
  expect(await run("-v", "data:relative")).toContain("is not absolute");
  expect(await run("--tmpfs", "/")).toContain("root of the container");
  expect(await run("--tmpfs", "/a", "-v", "data:/a")).toContain('both "/a"');
  expect(await refusal(["run", "--rm", "--secret-env", "NONE", image])).toMatch(/^125: .*secret NONE/s);
  expect(await run("--secret-env", "no-variable")).toContain("write SECRET=VARIABLE");
  expect(await run("--env-file", join(dir, "none.env"))).toStartWith("2: ");
  expect(await run("--rm")).toStartWith("2: --rm is for a container in the foreground");
  expect(await node().containerIds()).toEqual(before);
});

test("a volume keeps what containers write, until it is removed; a directory of the host is read where that is allowed", async () => {
  const sh = async (flags: readonly string[], words: string) =>
    await node().ok(["run", "--rm", "--network", "none", ...flags, image, "--", "sh", "-c", words]);
  const shared = join(dir, "shared");
  const both = ["-v", "notes:/notes", "-v", `${shared}:/shared:ro`];
  expect(await sh(both, "echo first > /notes/a && cat /shared/of-the-host")).toBe("from the host");
  expect(
    await sh(["-v", "notes:/other:ro"], "cat /other/a; touch /other/b 2>/dev/null || echo read-only"),
  ).toBe("first\nread-only");
  expect(await refusal(["run", "-d", "-v", `${shared}:/shared`, image])).toContain("Add :ro to the volume");
  const user = await node().ok(["run", "-d", "-v", "notes:/notes", image, "--", "sleep", "600"]);
  await world.reaches(user, "running");
  expect(await node().json<object[]>(["volume", "ls"])).toMatchObject([
    { name: "notes", containers: [user] },
  ]);
  expect(await refusal(["volume", "rm", "notes"])).toStartWith(`1: volume notes is used by ${user}`);
  await node().ok(["rm", "-f", user]);
  expect(await node().ok(["volume", "rm", "notes"])).toBe("notes");
  expect(await node().json<object[]>(["volume", "ls"])).toEqual([]);
  expect(await refusal(["volume", "rm", "notes"])).toStartWith("1: no volume notes in this workspace");
  expect(await sh(["-v", "notes:/notes"], "ls -A /notes")).toBe("");
});

/** Asks until something answers: the program listens a moment after it runs. */
async function fetchSoon(url: string): Promise<string> {
  for (const deadline = Date.now() + 10_000; ; ) {
    const response = await fetch(url).catch((error: unknown) => {
      if (Date.now() > deadline) throw error;
    });
    if (response?.ok) return await response.text();
  }
}
