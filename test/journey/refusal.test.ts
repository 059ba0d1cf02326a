import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { type Image, inScratch, refusal, World, withCredentials } from "../kit/world.ts";

let world: World;
let image: Image;
let secrets: string[];

beforeAll(async () => {
  world = await World.start();
  image = await world.build("team/app:1");
  secrets = [world.registry.account.password];
});
afterAll(() => world.stop());

const build = (reference: string, flags: readonly string[], env: Record<string, string>) =>
  world.node.cli(["image", "build", reference, ...flags], { env, timeoutMs: 30_000 });

describe("image build refuses by name", () => {
  afterAll(async () => {
    const images = await world.node.json<Image[]>(["image", "ls"]);
    expect(images.map(({ id }) => id)).toEqual([image.id]);
    expect(await world.node.json<object[]>(["secret", "ls"])).toHaveLength(1);
  });

  test("a wrong password", async () => {
    const env = { USERNAME: "robot", PASSWORD: "not the password" };
    const told = refusal(await build(image.reference, withCredentials, env), ["not the password"]);
    expect(told).toContain(world.registry.host);
  });

  test("no credentials for a private image", async () => {
    const told = refusal(await build(await world.push("other/private:1"), [], {}));
    expect(told).toContain(world.registry.host);
    expect(told).toMatch(/credential|--creds/);
  });

  test("an image that is not there", async () => {
    const told = refusal(
      await build(`${world.registry.host}/team/absent:7`, withCredentials, world.env),
      secrets,
    );
    expect(told).toContain("team/absent");
  });

  test("a platform that the image is not made for", async () => {
    const flags = [...withCredentials, "--platform", "linux/s390x"];
    const told = refusal(await build(image.reference, flags, world.env), secrets);
    expect(told).toContain("linux/s390x");
  });

  test("a key that nobody knows", async () => {
    const told = refusal(
      await build(image.reference, ["--creds", "USERNAME,PASSWORT"], { ...world.env, PASSWORT: "x" }),
      secrets,
    );
    expect(told).toContain("PASSWORT");
  });

  test("a variable that is not set", async () => {
    const told = refusal(await build(image.reference, withCredentials, { USERNAME: "robot" }), secrets);
    expect(told).toContain("PASSWORD");
  });

  test("a pair with one half missing", async () => {
    const told = refusal(await build(image.reference, ["--creds", "USERNAME"], world.env), secrets);
    expect(told).toContain("PASSWORD");
  });

  test("a reference that is none", async () => {
    const result = await build("UPPER/case:::", withCredentials, world.env);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toContain("UPPER/case:::");
  });

  test("a registry that is down", async () => {
    const told = refusal(await build("127.0.0.1:9/team/app:1", withCredentials, world.env), secrets);
    expect(told).toContain("127.0.0.1:9");
  });

  test("a private address that the operator did not allow", async () => {
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => new Response("seen", { status: 500 }),
    });
    try {
      const told = refusal(
        await build(`127.0.0.1:${server.port}/team/app:1`, withCredentials, world.env),
        secrets,
      );
      expect(told).toContain(`127.0.0.1:${server.port}`);
    } finally {
      await server.stop(true);
    }
  });
});

describe("run refuses by name", () => {
  test("an image id that there is none of", async () => {
    const result = await world.node.cli(["run", "img-000000000000000000000000"]);
    expect(refusal(result, [], 125)).toContain("img-000000000000000000000000");
  });

  test("a reference that was not built and cannot be, as the build says it", async () => {
    const reference = `${world.registry.host}/team/absent:1`;
    expect(refusal(await world.node.cli(["run", reference]), [], 125)).toContain("--creds");
    const withAccess = ["run", ...withCredentials, reference];
    const told = refusal(await world.node.cli(withAccess, { env: world.env }), secrets, 125);
    expect(told).toContain("team/absent");
  });

  test("credentials for an image that is built", async () => {
    const result = await world.node.cli(["run", ...withCredentials, image.id], { env: world.env });
    expect(result.code).toBe(2);
    expect(result.stderr).toContain("reference");
  });

  test("a command that the image does not hold", async () => {
    const result = await world.node.cli(["run", image.id, "--", "no-such-program"]);
    expect(result.code).toBe(127);
    expect(result.stderr).toContain("no-such-program");
    expect((await world.node.cli(["run", image.id, "--", "/etc"])).code).toBe(126);
  });

  test("more than any worker has", async () => {
    const result = await world.node.cli(["run", "--memory", "100000Gi", image.id]);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toMatch(/memory/);
  });
});

describe("wrong usage exits with 2", () => {
  for (const args of [
    ["run"],
    ["run", "--no-such-flag", "x"],
    ["no-such-command"],
    ["image", "build"],
    ["run", "--memory", "much", "x"],
  ]) {
    test(`oci-node ${args.join(" ")}`, async () => {
      const result = await world.node.cli(args);
      expect(result.code).toBe(2);
      expect(result.stderr).not.toBe("");
    });
  }

  for (const args of [
    ["--help"],
    ["image", "--help"],
    ["run", "--help"],
    ["image", "build", "--help"],
    ["secret", "--help"],
  ]) {
    test(`oci-node ${args.join(" ")} explains and exits with 0`, async () => {
      const result = await world.node.cli(args);
      expect(result.code).toBe(0);
      expect(result.stdout).toContain("USAGE");
    });
  }
});

describe("a node does not start", () => {
  const start = async (args: string[], home: string) =>
    runCli(await product(), args, { env: { HOME: home, XDG_CONFIG_HOME: home }, timeoutMs: 30_000 });

  test("on a port that is in use", () =>
    inScratch(async (dir) => {
      const server = createServer().listen(0, "127.0.0.1");
      await new Promise((resolve) => server.once("listening", resolve));
      const { port } = server.address() as { port: number };
      try {
        const result = await start(
          ["dev", "--data-dir", join(dir, "data"), "--listen", `127.0.0.1:${port}`],
          dir,
        );
        expect(refusal(result)).toContain(String(port));
        expect(result.elapsedMs).toBeLessThan(20_000);
      } finally {
        server.close();
      }
    }));

  for (const [what, text] of [
    ["that is no TOML", "= nonsense"],
    ["with an unknown field", 'worker = { cash_dir = "/x" }'],
    ["with a value of the wrong kind", 'log_level = "loud"'],
  ] as const) {
    test(`with a configuration file ${what}`, () =>
      inScratch(async (dir) => {
        const path = join(dir, "config.toml");
        await writeFile(path, text);
        const told = refusal(await start(["--role=gateway,scheduler,worker", "--config", path], dir));
        expect(told).toContain(path);
      }));
  }

  for (const [what, section, field] of [
    [
      "that names no role of AWS's",
      '[identities.x]\ntype = "aws"\nsource = "instance"\nrole_arn = "puller"',
      "x",
    ],
    ["whose authorities are not there", '[registry]\nca_file = "/nowhere.pem"', "ca_file: /nowhere.pem"],
  ] as const) {
    test(`with a configuration file ${what}, by file and field`, () =>
      inScratch(async (dir) => {
        const path = join(dir, "config.toml");
        await writeFile(path, `data_dir = "${join(dir, "data")}"\n${section}\n`);
        const told = refusal(await start(["--role=gateway,scheduler", "--config", path], dir));
        expect(told).toMatch(new RegExp(`^oci-node: ${path}: (identities|registry)\\.${field}`));
      }));
  }

  test("and does not go on waiting for a scheduler once it is told to end", () =>
    inScratch(async (dir) => {
      const path = join(dir, "config.toml");
      const settings = `data_dir = "${join(dir, "data")}"\n[worker]\nscheduler_url = "https://127.0.0.1:1"\n`;
      await writeFile(path, `${settings}token_file = "${join(dir, "token")}"\n`);
      await writeFile(join(dir, "token"), `ocn_${"A".repeat(43)}.${"A".repeat(43)}\n`, { mode: 0o600 });
      const program = new Program([...(await product()), "--role=worker", "--config", path], {
        env: { HOME: dir, XDG_CONFIG_HOME: dir },
      });
      await program.waitFor(/the scheduler does not answer/);
      expect(await program.stop("SIGTERM")).toBe(0);
    }));

  test("with a configuration file that others may write", () =>
    inScratch(async (dir) => {
      const path = join(dir, "config.toml");
      await writeFile(path, "");
      await chmod(path, 0o666);
      expect(refusal(await start(["--role=worker", "--config", path], dir))).toContain(path);
    }));

  test("on data that another node is using", async () => {
    const result = await start(
      ["dev", "--data-dir", world.node.dataDir, "--listen", "127.0.0.1:0"],
      "/nonexistent",
    );
    expect(refusal(result)).toContain(world.node.dataDir);
    expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
  });

  test("and commands without one say how to start it", () =>
    inScratch(async (dir) => {
      expect(refusal(await start(["ps"], dir))).toContain("oci-node dev");
    }));
});
