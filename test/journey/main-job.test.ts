import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { workerShape } from "../../src/cli/shape.ts";
import { type Image, type Secret, World, withCredentials } from "../kit/world.ts";

let world: World;
let image: Image;

beforeAll(async () => {
  world = await World.start();
  image = await world.build("team/app:1");
});
afterAll(() => world.stop());

describe("build", () => {
  test("gives an image that names its digest, platform and secret", async () => {
    expect(image.reference).toContain("team/app:1");
    expect(image.manifestDigest).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(image.platform).toBe("linux/amd64");
    expect(image.layers).toBe(3);
    const listed = await world.node.json<Image[]>(["image", "ls"]);
    expect(listed.map(({ id }) => id)).toContain(image.id);
  });

  test("keeps the credential as a secret whose value nobody shows", async () => {
    const secrets = await world.node.json<Secret[]>(["secret", "ls"]);
    const secret = secrets.find(({ name }) => name === image.secretName);
    expect(secret?.registry).toBe(world.registry.host);
    expect(secret?.principal).toBe(world.registry.account.username);
    expect(secret?.version).toBe(1);
    for (const text of [JSON.stringify(secrets), await world.node.ok(["secret", "ls"])]) {
      expect(text).not.toContain(world.registry.account.password);
    }
  });

  test("makes no second version and no second image of the same", async () => {
    const again = await world.build("team/app:1");
    expect(again.secretName).toBe(image.secretName);
    const secrets = await world.node.json<Secret[]>(["secret", "ls"]);
    expect(secrets.map(({ version }) => version)).toEqual([1]);
  });

  test("prints the image's id alone on standard output", async () => {
    const reference = `${world.registry.host}/team/app:1`;
    const result = await world.node.cli(["image", "build", reference, ...withCredentials], {
      env: world.env,
    });
    expect(result.code).toBe(0);
    expect(result.stdout).toMatch(/^\S+\n$/);
  });
});

describe("run", () => {
  test("shows the container's output and nothing else", async () => {
    const result = await world.node.cli(["run", image.id]);
    expect([result.code, result.stdout]).toEqual([0, "hello from the image\n"]);
  });

  test("takes a reference, a command and variables, and keeps the image's environment", async () => {
    const command = ["--", "sh", "-c", 'echo "$FROM_IMAGE $MINE $(pwd)"; echo to-stderr >&2'];
    const result = await world.node.cli(["run", "--env", "MINE=mine", image.reference, ...command]);
    expect(result.stdout).toBe("yes mine /work\n");
    expect(result.stderr).toBe("to-stderr\n");
  });

  test("ends with the container's exit code", async () => {
    const result = await world.node.cli(["run", image.id, "--", "exit-with", "42"]);
    expect([result.code, result.stdout]).toEqual([42, "leaving with 42\n"]);
  });

  test("with -d prints the id; ps, logs, inspect and stop know it", async () => {
    const id = await world.node.ok([
      "run",
      "-d",
      image.id,
      "--",
      "sh",
      "-c",
      "echo one; echo two; exec sleep 1000",
    ]);
    await world.reaches(id, "running");
    expect(await world.node.ok(["ps"])).toContain(id);
    const follower = world.node.start(["logs", "-f", id]);
    await follower.waitFor(/one\ntwo\n/);
    await world.node.ok(["stop", "--timeout", "1", id]);
    expect(await follower.child.exited).toBe(0);
    const container = await world.inspect(id);
    expect(container.state).toBe("stopped");
    expect(await world.node.ok(["ps"])).not.toContain(id);
    expect(await world.node.ok(["ps", "--all"])).toContain(id);
    expect(await world.node.ok(["logs", id])).toBe("one\ntwo");
  });

  test("keeps what happened when: phases, events and what was fetched", async () => {
    await world.node.ok(["run", image.id]);
    const container = await world.lastContainer();
    expect(container.state).toBe("exited");
    const phases = container.phases
      .toSorted((a, b) => (a.at ?? "").localeCompare(b.at ?? ""))
      .map(({ name }) => name);
    for (const phase of ["pending", "scheduled", "preparing", "mounted", "running", "exited"])
      expect(phases).toContain(phase);
    expect(phases.indexOf("mounted")).toBeLessThan(phases.indexOf("running"));
    expect(container.events.map(({ kind }) => kind)).toContain("credential");
    expect(container.transfer?.compressedBytes).toBeGreaterThan(0);
    expect(container.worker).not.toBeNull();
  });

  test("a container sees its own processes, a loopback, and a layer of its own to write to", async () => {
    const script =
      "ip link | grep -c '^[0-9]'; ls /proc | grep -c '^[0-9]'; mkdir /etc/made && echo writable; cat /proc/self/uid_map";
    const result = await world.node.cli(["run", "--network", "none", image.id, "--", "sh", "-c", script]);
    const [links, processes, writable, users = ""] = result.stdout.split("\n");
    expect(Number(links)).toBe(1);
    expect(Number(processes)).toBeLessThan(8);
    expect(writable).toBe("writable");
    // Its root is somebody of no rights on the host.
    expect(Number(users.trim().split(/\s+/)[1])).toBeGreaterThanOrEqual(2 ** 30);
    const again = await world.node.cli(["run", image.id, "--", "ls", "-d", "/etc/made"]);
    expect(again.code).not.toBe(0);
  });

  test("a memory limit is felt and told", async () => {
    const script = "x=$(yes | head -c 80000000); echo survived";
    const result = await world.node.cli(["run", "--memory", "16Mi", image.id, "--", "sh", "-c", script]);
    expect(result.stdout).not.toContain("survived");
    expect((await world.lastContainer()).oomKilled).toBe(true);
  });

  test("--network host is refused where the operator did not allow it", async () => {
    const result = await world.node.cli(["run", "--network", "host", image.id]);
    expect(result.code).not.toBe(0);
    expect(result.stdout).toBe("");
    expect(result.stderr).toMatch(/network/);
  });

  test("--eager has the whole image here before the start", async () => {
    const other = await world.build("team/eager:1");
    await world.node.ok(["run", "--eager", other.id]);
    expect((await world.lastContainer()).transfer?.complete).toBe(true);
  });
});

describe("the operator", () => {
  test("finds the three log lines with their fields", async () => {
    await world.node.ok(["run", image.id]);
    const { id } = await world.lastContainer();
    const find = (message: string) => world.node.records.filter((record) => record["message"] === message);
    const created = find("creating credential secret")[0];
    expect(created).toMatchObject({ registry: world.registry.host });
    const added = find("added OCI credentials to container request").at(-1);
    expect(Object.values(added ?? {})).toContain(id);
    const used = find("using credential provider from request for OCI image mount").at(-1);
    expect(Object.values(used ?? {})).toContain(id);
    for (const record of [created, added, used]) expect(record).toMatchObject({ level: "info" });
  });

  test("sees the worker with its capacity", async () => {
    const workers = await world.node.json<ReturnType<typeof workerShape>[]>(["worker", "ls"]);
    expect(workers).toHaveLength(1);
    expect(workers[0]?.platform).toBe("linux/amd64");
    expect(workers[0]?.cpuMillis).toBeGreaterThan(0);
  });

  test("is told by doctor what works here", async () => {
    const result = await world.node.cli(["doctor"]);
    expect(result.code).toBe(0);
    for (const word of ["FUSE", "EROFS", "runc", "cgroup", "users .*user namespace"])
      expect(result.stdout).toMatch(new RegExp(word, "i"));
  });
});

test("an image in use is kept, an unused one is removed", async () => {
  const other = await world.build("team/short-lived:1");
  const id = await world.node.ok(["run", "-d", other.id, "--", "sleep", "1000"]);
  await world.reaches(id, "running");
  expect((await world.node.cli(["image", "rm", other.id])).code).toBe(1);
  await world.node.ok(["stop", "--timeout", "1", id]);
  await world.node.ok(["image", "rm", other.id]);
  expect((await world.node.cli(["image", "inspect", other.id])).code).toBe(1);
});
