import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Image, refusal, type Secret, World, withCredentials } from "../kit/world.ts";

const first = { username: "robot", password: "the first password" };
const second = { username: "robot", password: "the second password" };
let world: World;
let image: Image;

beforeAll(async () => {
  world = await World.start({ registry: { auth: "bearer", accounts: [first] } });
  image = await world.build("team/app:1");
});
afterAll(() => world.stop());

const secretOf = async (name: string | null): Promise<Secret | undefined> => {
  const secrets = await world.node.json<Secret[]>(["secret", "ls"]);
  return secrets.find((secret) => secret.name === name);
};

describe("a password that the registry changed", () => {
  test("ends the run by name when the secret still has the old one, and nothing else is tried", async () => {
    await world.registry.setAccounts([second]);
    const result = await world.node.cli(["run", image.id]);
    expect(result.code).toBe(125);
    expect(result.stdout).toBe("");
    expect(result.stderr).toContain(world.registry.host);
    const container = await world.lastContainer();
    expect(container.state).toBe("failed");
    expect(container.reason).toContain(world.registry.host);
    expect(JSON.stringify(container)).not.toContain(first.password);
    expect(world.registry.tokens?.requests.at(-1)?.wrongPassword).toBe(true);
  });

  test("a build with the old one is refused and changes nothing", async () => {
    const result = await world.node.cli(["image", "build", image.reference, ...withCredentials], {
      env: { USERNAME: first.username, PASSWORD: first.password },
    });
    refusal(result, [first.password, second.password]);
    expect((await secretOf(image.secretName))?.version).toBe(1);
  });

  test("is used by the very next run once the secret is updated", async () => {
    const name = String(image.secretName);
    const updated = await world.node.cli(["secret", "update", name, ...withCredentials], {
      env: { USERNAME: second.username, PASSWORD: second.password },
    });
    expect([updated.code, updated.stdout]).toEqual([0, `${name}: version 2\n`]);
    expect(updated.stderr).toContain(`checked: ${world.registry.host} takes it`);
    expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
    expect((await secretOf(image.secretName))?.version).toBe(2);
  });

  test("the same value once more makes no version", async () => {
    const again = await world.node.ok(["secret", "update", String(image.secretName), ...withCredentials], {
      env: { USERNAME: second.username, PASSWORD: second.password },
    });
    expect(again).toContain("unchanged");
    expect((await secretOf(image.secretName))?.version).toBe(2);
  });

  test("a stale build cannot undo the rotation", async () => {
    const stale = await world.node.cli(["image", "build", image.reference, ...withCredentials], {
      env: { USERNAME: first.username, PASSWORD: first.password },
    });
    expect(stale.code).toBe(1);
    expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
  });
});

describe("a value for containers", () => {
  const show = ["--", "sh", "-c", "echo $DB; cat /run/secrets/db"];
  const run = (...flags: string[]) => world.node.cli(["run", ...flags, image.id, ...show]);

  test("is given to the next run as it is then; without it nothing is run, and no credential stands in", async () => {
    const { node } = world;
    await node.ok(["secret", "create", "--opaque", "db"], { stdin: "first value" });
    const asBoth = ["--secret-env", "db=DB", "--secret-file", "db"];
    expect((await run(...asBoth)).stdout).toBe("first value\nfirst value");
    expect(await node.ok(["secret", "update", "db"], { stdin: "second value" })).toBe("db: version 2");
    expect((await run(...asBoth)).stdout).toBe("second value\nsecond value");
    expect(await secretOf("db")).toMatchObject({ type: "opaque", version: 2, registry: "", health: null });

    const lost = await run("--secret-env", "lost=DB");
    expect([lost.code, lost.stdout, lost.stderr]).toEqual([
      125,
      "",
      expect.stringContaining("has no secret lost"),
    ]);
    await node.ok(["secret", "create", world.registry.host, "--name", "reg", "--unchecked"], {
      stdin: "USERNAME=other\nPASSWORD=another password\n",
    });
    const credential = await run("--secret-env", "reg=DB");
    expect([credential.code, credential.stdout]).toEqual([125, ""]);
    expect(credential.stderr).toContain("is a credential of");
    refusal(await node.cli(["image", "build", image.reference, "--secret", "db"]));
    expect((await node.cli(["secret", "health", "db"])).stderr).toContain("nobody to check it with");
    expect(await node.ok(["secret", "health"])).not.toContain("db");

    const living = await node.ok(["run", "-d", "--secret-env", "db=DB", image.id, "--", "sleep", "1000"]);
    const refused = await node.cli(["secret", "rm", "db"]);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining(living)]);
    expect((await node.json<{ containers: string[] }>(["secret", "inspect", "db"])).containers).toEqual([
      living,
    ]);
    await node.ok(["stop", "--timeout", "1", living]);
    for (const name of ["db", "reg"]) await node.ok(["secret", "rm", name]);
  });
});

describe("secrets", () => {
  test("come by standard input, and two accounts of one registry do not overwrite each other", async () => {
    await world.registry.setAccounts([second, { username: "other", password: "another password" }]);
    const created = await world.node.ok(["secret", "create", world.registry.host], {
      stdin: "USERNAME=other\nPASSWORD=another password\n",
    });
    expect(created).not.toBe(String(image.secretName));
    expect((await secretOf(created))?.principal).toBe("other");
    expect((await secretOf(image.secretName))?.principal).toBe("robot");
    await world.node.ok(["secret", "rm", created]);
    expect(await secretOf(created)).toBeUndefined();
  });

  test("that images use are kept unless forced; a run without goes on and says so", async () => {
    refusal(await world.node.cli(["secret", "rm", String(image.secretName)]));
    await world.node.ok(["secret", "rm", "--force", String(image.secretName)]);
    const result = await world.node.cli(["run", image.id]);
    expect(result.code).toBe(125);
    const container = await world.lastContainer();
    const told = container.events.filter(({ kind }) => kind === "credential").map(({ message }) => message);
    expect(told.join("\n")).toContain("without credentials");
    expect(container.reason).toContain(world.registry.host);
  });

  test("are not taken from arguments", async () => {
    const result = await world.node.cli([
      "secret",
      "create",
      world.registry.host,
      "USERNAME=x",
      "PASSWORD=y",
    ]);
    expect(result.code).toBe(2);
  });
});
