import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { healthShape } from "../../src/cli/shape.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { tell } from "../kit/inside.ts";
import { type Container, type Image, refusal, type Secret, World, withCredentials } from "../kit/world.ts";

type Health = ReturnType<typeof healthShape>;

const pull = { "**": ["pull"] } as const;
const robot = { username: "robot", password: "the password of the robot" };
const renewed = { username: "robot", password: "the next password of the robot" };
const puller = { username: "puller", password: "the password of the puller", access: pull };
const variables = (account: { username: string; password: string }) => ({
  USERNAME: account.username,
  PASSWORD: account.password,
});

const files = Array.from({ length: 10 }, (_, index) => String(index));
/** Reads one file after the other for longer than a token lives; what cannot be read, once more when it is told. */
const reader = `while [ ! -e /tmp/go ]; do sleep 0.05; done
  for file in ${files.join(" ")}; do
    md5sum /data/$file || { while [ ! -e /tmp/on ]; do sleep 0.05; done; until md5sum /data/$file; do sleep 1; done; }
    sleep 1
  done`;

let scratch: string;
let world: World;
let image: Image;
let name: string;
let id: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "oci-node-health-"));
  await chmod(scratch, 0o755);
  const config = join(scratch, "config.toml");
  await writeFile(config, "[worker]\nbackground_fetch = false\ntraces = false\n", { mode: 0o600 });
  const registry = { auth: "bearer", accounts: [robot, puller], tokenSeconds: 4 } as const;
  world = await World.start({ registry, node: { args: ["--config", config] } });
  // Not there before it is read: what comes first is far away, and nothing shrinks it.
  const data = files.map((file) => ({
    path: `data/${file}`,
    data: randomBytes(4 << 20),
  }));
  image = await world.build("team/app:1", {
    image: await busyboxImage({ extra: [{ path: "data", type: "dir" as const }, ...data] }),
  });
  name = String(image.secretName);
}, 120_000);
afterAll(async () => {
  await world?.stop();
  await rm(scratch, { recursive: true, force: true });
}, 60_000);

async function health(...args: string[]): Promise<Health> {
  const [only] = await world.node.json<Health[]>(["secret", "health", name, ...args]);
  if (only === undefined) throw new Error("no health");
  return only;
}

/** Asks until the secret fares so. */
async function fares(state: string): Promise<Health> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const now = await health();
    if (now.state === state) return now;
    if (Date.now() > deadline) throw new Error(`${name} is ${now.state} (${now.reason}), not ${state}`);
    await Bun.sleep(100);
  }
}

describe("a secret", () => {
  test("is ok since its build, and shows what uses it in one command", async () => {
    expect(await health()).toMatchObject({ state: "ok", images: [image.id], containers: [], version: 1 });
    id = await world.node.ok(["run", "--detach", image.id, "--", "/bin/sh", "-c", reader]);
    await world.reaches(id, "running");
    const shown = JSON.parse(await world.node.ok(["secret", "inspect", name]));
    expect(shown).toMatchObject({ name, version: 1, images: [image.id], containers: [id] });
    expect(shown.health.state).toBe("ok");
    const told = refusal(await world.node.cli(["secret", "rm", name]));
    expect(told).toContain(image.id);
    expect(told).toContain(id);
  });

  test("that may push is flagged, with a sentence that says why that is bad", async () => {
    expect(await health("--check")).toMatchObject({ state: "ok", rights: "push" });
    const { stdout, stderr } = await world.node.cli(["secret", "health", name]);
    expect(stdout).toMatch(/ push /);
    expect(stderr).toContain("may push");
  });

  test("whose account is revoked is failing as soon as a worker's read fails", async () => {
    await world.registry.setAccounts([puller]);
    expect((await health()).state).toBe("ok");
    await tell(id, "go");
    const failing = await fares("failing");
    expect(failing).toMatchObject({ code: "unauthorized", images: [image.id], containers: [id] });
    expect(failing.reason).toContain(world.registry.host);
    expect(failing.next).toContain("revoked");
    const listed = await world.node.ok(["secret", "ls"]);
    expect(listed).toMatch(new RegExp(`${name} .* failing `));
    expect((await world.node.cli(["secret", "health"])).code).toBe(0);
    expect((await world.node.cli(["secret", "health", "--fail"])).code).toBe(1);
  });

  test("whose value is changed to the right one is ok at once, and what waited goes on", async () => {
    await world.registry.setAccounts([renewed, puller]);
    const update = ["secret", "update", name, ...withCredentials];
    const told = await world.node.cli(update, { env: variables(renewed) });
    expect([told.code, told.stdout]).toEqual([0, `${name}: version 2\n`]);
    expect(told.stderr).toContain(`checked: ${world.registry.host} takes it`);
    expect(await health()).toMatchObject({ state: "ok", version: 2 });
    await tell(id, "on");
    const ended: Container = await world.reaches(id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 0]);
  });

  test("is not replaced by a wrong value, and the next run is none the worse", async () => {
    const wrong = { ...robot, password: "not the password" };
    const update = ["secret", "update", name, ...withCredentials];
    const told = refusal(await world.node.cli(update, { env: variables(wrong) }), [wrong.password]);
    expect(told).toContain("nothing was kept");
    expect(told).toContain("--unchecked");
    expect(await health()).toMatchObject({ state: "ok", version: 2 });
    expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
  });

  test("is replaced by it if that is wanted, and is then found failing", async () => {
    const wrong = { ...robot, password: "not the password" };
    const update = ["secret", "update", name, ...withCredentials, "--unchecked"];
    expect(await world.node.ok(update, { env: variables(wrong) })).toContain("version 3");
    expect(await health()).toMatchObject({ state: "unknown", code: "unchecked", version: 3 });
    expect(await health("--check")).toMatchObject({ state: "failing", code: "unauthorized", version: 3 });
    await world.node.ok(["secret", "update", name, ...withCredentials], { env: variables(renewed) });
    expect(await health()).toMatchObject({ state: "ok", version: 4 });
  });

  test("whose registry is away is unknown, and is kept all the same", async () => {
    const away = "127.0.0.1:9";
    const create = ["secret", "create", away, "--name", "away", ...withCredentials];
    const kept = await world.node.cli(create, { env: variables(renewed) });
    expect([kept.code, kept.stdout]).toEqual([0, "away\n"]);
    expect(kept.stderr).toContain("unknown");
    await world.node.ok(["secret", "rm", "away"]);
  });
});

describe("secret create", () => {
  const place = () => `${world.registry.host}/team/app:1`;

  test("refuses what the registry refuses, and keeps nothing", async () => {
    const create = ["secret", "create", place(), "--name", "wrong", ...withCredentials];
    const wrong = { ...puller, password: "not the password" };
    const told = refusal(await world.node.cli(create, { env: variables(wrong) }), [wrong.password]);
    expect(told).toContain("refuses the credential");
    const all = await world.node.json<Secret[]>(["secret", "ls"]);
    expect(all.map((secret) => secret.name)).toEqual([name]);
  });

  test("refuses an account that may not pull the repository that is named", async () => {
    const stranger = {
      username: "stranger",
      password: "of the stranger",
      access: { "other/*": ["pull"] },
    } as const;
    await world.registry.setAccounts([renewed, puller, stranger]);
    const create = ["secret", "create", place(), "--name", "stranger", ...withCredentials];
    const told = refusal(await world.node.cli(create, { env: variables(stranger) }), [stranger.password]);
    expect(told).toContain("does not allow this credential");
  });

  test("remembers the repository, the rights and the end that its owner tells", async () => {
    const create = ["secret", "create", place(), "--name", "kept", "--expires", "10d", ...withCredentials];
    const { code, stderr } = await world.node.cli(create, { env: variables(puller) });
    expect(code).toBe(0);
    expect(stderr).toContain("as its owner said");
    const shown = JSON.parse(await world.node.ok(["secret", "inspect", "kept"]));
    expect(shown.repository).toBe("team/app:1");
    expect(shown.health).toMatchObject({ state: "expiring", rights: "pull" });
    const table = await world.node.ok(["secret", "health"]);
    expect(table).toMatch(/^kept .* expiring .* pull /m);
    await world.node.ok(["secret", "rm", "kept"]);
  });

  test("takes no end that is past", async () => {
    const create = ["secret", "create", place(), "--expires", "2020-01-01", ...withCredentials];
    expect(refusal(await world.node.cli(create, { env: variables(puller) }))).toContain("ended already");
  });
});

test("no password is in the node's log", () => {
  for (const { password } of [robot, renewed, puller]) expect(world.node.log).not.toContain(password);
});
