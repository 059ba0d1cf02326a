import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hasHiddenCharacter } from "../../src/std/printable.ts";
import { type CliOptions, type CliResult, runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { type RawCall, rawCaller } from "../kit/raw-call.ts";
import { type Image, inScratch, refusal, World } from "../kit/world.ts";

const value = "hunter2canary";
const [kilo, mega] = [1024, 1024 * 1024];
let world: World;
let image: Image;
let raw: RawCall;
const kept: string[] = [];

beforeAll(async () => {
  world = await World.start();
  image = await world.build("team/app:1");
  raw = await rawCaller(world.node);
});
afterAll(() => world.stop());

/** A failed command: what it says is short, shows as it is, and has no value in it. */
function refused(result: CliResult, code: 1 | 2 | 125 = 1): string {
  const told = code === 2 ? result.stderr : refusal(result, [value], code);
  expect(result.code).toBe(code);
  expect(told).not.toContain(value);
  expect(told.length).toBeLessThan(4000);
  expect(hasHiddenCharacter(told.replaceAll("\n", ""))).toBe(false);
  return told;
}

const create = (stdin: string, more: string[] = []) =>
  world.node.cli(["secret", "create", "127.0.0.1:1", ...more], { stdin, timeoutMs: 30_000 });

describe("a value of", () => {
  const sizes = [1, 100, 16 * kilo, 16 * kilo + 1, 64 * kilo, mega, 4 * mega, 64 * mega];
  const isTaken = (size: number): boolean => size <= 16 * kilo;

  for (const size of sizes) {
    const password = "p".repeat(size);
    const told = size > 256 * kilo ? "the credentials file is too large" : "PASSWORD is longer than 16 KiB";

    test(`${size} bytes over the API is ${isTaken(size) ? "kept" : "refused by its key, or as a message"}`, async () => {
      const name = `api-${size}`;
      const credentials = { USERNAME: "u", PASSWORD: password };
      const body = { name, registry: "127.0.0.1:1", credentials, unchecked: true };
      const answer = await raw("SecretService/CreateSecret", body);
      if (isTaken(size)) return expect([answer.status, kept.push(name) > 0]).toEqual([200, true]);
      const large = answer.code === "resource_exhausted" && answer.message.includes("4194304");
      expect(large || answer.message === "PASSWORD is longer than 16 KiB").toBe(true);
      expect(answer.text.length).toBeLessThan(1000);
    });

    test(`${size} bytes on standard input and in a file is ${isTaken(size) ? "kept" : "refused by its key"}`, () =>
      inScratch(async (dir) => {
        const file = join(dir, "creds");
        await writeFile(file, `USERNAME=u\nPASSWORD=${password}\n`, { mode: 0o600 });
        const results = [
          await create(`USERNAME=u\nPASSWORD=${password}\n`, ["--name", `stdin-${size}`, "--unchecked"]),
          await world.node.cli([
            "secret",
            "create",
            "127.0.0.1:1",
            "--unchecked",
            "--name",
            `file-${size}`,
            "--creds-file",
            file,
          ]),
        ];
        for (const result of results) {
          if (isTaken(size)) expect([result.code, result.stderr.includes("oci-node:")]).toEqual([0, false]);
          else expect(refused(result)).toContain(told);
        }
      }));
  }

  test("any size that was kept is used: the node reads back what it was given", async () => {
    expect(kept.length).toBe(3);
    const reference = image.reference.replace(world.registry.host, "127.0.0.1:1");
    for (const name of kept) {
      const built = await world.node.cli(["image", "build", reference, "--secret", name]);
      expect(refused(built)).toContain("127.0.0.1:1");
    }
  });
});

describe("on the command line", () => {
  const lines = (password: string, userName = "u") => `USERNAME=${userName}\nPASSWORD=${password}\n`;
  test.each<[string, string, string[]]>([
    ["nothing", "", ["is empty"]],
    ["blank lines and comments", "\n# PASSWORD=x\n\n", ["is empty"]],
    ["a line that is none", value, ["line 1", "KEY=value"]],
    ["a key that nobody knows", `USERNAME=u\nPASSWORT=${value}\n`, ["PASSWORT is not a credential key"]],
    ["a key twice", `${lines(value)}PASSWORD=${value}\n`, ["line 3", "PASSWORD again"]],
    ["half of a pair", `PASSWORD=${value}\n`, ["USERNAME is missing"]],
    ["an empty value", lines(""), ["PASSWORD is empty"]],
    ["an empty name", lines(value, ""), ["USERNAME is empty"]],
    ["a value of blanks", lines('"   "'), ["PASSWORD is empty"]],
    ["NUL", lines(`${value}\0`), ["PASSWORD holds"]],
    ["an escape sequence", lines(`${value}\u001b[2J`), ["PASSWORD holds"]],
    ["a tab", lines(`${value}\t.`), ["PASSWORD holds"]],
    ["a name that turns text around", lines(value, "\u202eadmin"), ["USERNAME holds a character"]],
    ["a name with a zero-width space", lines(value, "ad\u200bmin"), ["USERNAME holds a character"]],
    ["a name without end", lines(value, "u".repeat(2049)), ["USERNAME is longer than 2048"]],
    ["JSON in place of lines", JSON.stringify({ USERNAME: "u", PASSWORD: value }), ["line 1"]],
    [
      "a path in place of a key",
      `GOOGLE_APPLICATION_CREDENTIALS=/etc/${value}\n`,
      ["GOOGLE_APPLICATION_CREDENTIALS"],
    ],
  ])("%s is refused by its name", async (_, stdin, told) => {
    const result = refused(await create(stdin));
    for (const part of told) expect(result).toContain(part);
  });

  test("values beyond ASCII, with quotes, equal signs, and characters that turn text around, are kept as they are", async () => {
    for (const password of ["pä漢🦀", "a=b=c", `it's "quoted"`, "\u202epassword", " x "]) {
      const account = { username: "robot", password };
      await world.registry.setAccounts([account]);
      const file = `USERNAME=robot\nPASSWORD=${password === " x " ? `"${password}"` : password}\n`;
      const name = String(image.secretName);
      const updated = await world.node.cli(["secret", "update", name], { stdin: file });
      expect([updated.code, updated.stderr.includes("oci-node:")]).toEqual([0, false]);
      expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
    }
  });

  const long = "x".repeat(100_000);
  const fails: [string, string[], CliOptions, 1 | 2 | 125, string][] = [
    [
      "a name of a secret outside of the letters",
      ["secret", "create", "ghcr.io", "--name", "A B"],
      {},
      1,
      "name",
    ],
    ["a name of a secret of 256", ["secret", "create", "ghcr.io", "--name", "n".repeat(256)], {}, 1, "255"],
    ["an empty name of a secret", ["secret", "rm", ""], {}, 1, "secret"],
    ["a secret's name that steers", ["secret", "rm", "\u001b[2J\u202e"], {}, 1, "\\u{1b}[2J\\u{202e}"],
    ["a secret's name without end", ["secret", "update", long], {}, 1, "(100000 characters)"],
    ["a reference without end", ["image", "build", long], {}, 1, "too long"],
    ["a reference that steers", ["image", "build", "gh\u202ecr.io/a"], {}, 1, "\\u{202e}"],
    ["a registry without end", ["secret", "create", long], {}, 1, "too long"],
    ["an image that is none", ["run", "Not An Image"], {}, 125, "not an image reference"],
    ["a container's id that steers", ["inspect", "c-\u009b31m"], {}, 1, "\\u{9b}"],
    ["a container's id without end", ["stop", long], {}, 1, "(100000 characters)"],
    ["a variable without a name", ["run", "--env", "=x", "img-1"], {}, 2, "K=V"],
    ["a platform that is none", ["image", "build", "ghcr.io/a/b", "--platform", "\u202e"], {}, 1, "platform"],
  ];
  test.each(fails)("%s is refused by its name", async (_, args, options, code, told) => {
    const stdin = args[1] === "create" || args[1] === "update" ? `USERNAME=u\nPASSWORD=${value}\n` : "";
    const result = await world.node.cli(args, { stdin, ...options });
    expect(refused(result, code)).toContain(told);
  });
});

describe("run takes", () => {
  const cli = (...words: string[]) => world.node.cli(["run", ...words], { timeoutMs: 30_000 });

  test("arguments and variables as long as Linux does, and tells of longer ones", async () => {
    const longest = "x".repeat(128 * kilo - 3);
    expect(
      (await cli("--env", `A=${longest}`, image.id, "--", "sh", "-c", 'printf %s "$A" | wc -c')).stdout,
    ).toBe(`${longest.length}\n`);
    // The shell that starts the command has the same limit: longer ones come over the API.
    const run = (more: object) => raw("ContainerService/RunContainer", { image: image.id, ...more });
    const answers = await Promise.all([
      run({ command: ["sh", `${value}${longest}xx`] }),
      run({ env: { A: `${value}${longest}` } }),
      run({ command: Array.from({ length: 20 }, () => `${value}${"x".repeat(100_000)}`) }),
      run({ env: { [`A=${"x".repeat(1000)}`]: value } }),
      run({ cpuMillis: -1 }),
      run({ memoryBytes: "1" }),
    ]);
    for (const { code, message, next } of answers) {
      expect(code).toBe("invalid_argument");
      expect(message).not.toContain(value);
      expect(message.length).toBeLessThan(300);
      expect(next).not.toBe("");
    }
    expect(answers.map(({ message }) => message.split(" ").slice(0, 2).join(" "))).toEqual([
      "argument 2",
      "variable A",
      "the command",
      expect.any(String),
      "the number",
      "the memory",
    ]);
  });

  test("what only looks like a NUL character", async () => {
    expect((await cli(image.id, "--", "sh", "-c", "printf '%s' '\\u0000'")).stdout).toBe("\\u0000");
  });
});

describe("a configuration", () => {
  test.each([
    ["a key twice", `log_level = "info"\nlog_level = "debug"\n# ${value}`, "line 2", "log_level"],
    ["a table twice", `[gateway]\n[registry]\n[gateway]\n# ${value}`, "line 3", "gateway"],
    ["a password without quotes", `[database]\nurl = ${value}\n`, "line 2", "quoted"],
    ["an open string", `[database]\nurl = "postgres://u:${value}\n`, "line 2", "string"],
    ["depth without end", `[gateway]\nlisten = ${"[".repeat(50_000)}\n`, "line 2", "not TOML"],
    ["NUL", `log_level = "in\0fo"\n`, "line 1", "Control character"],
    ["a field that nobody knows", `[database]\n${value} = 1\n`, "database", ""],
  ])("with %s is refused by line or field", (_, text, place, what) =>
    inScratch(async (dir) => {
      const path = join(dir, "config.toml");
      await writeFile(path, `data_dir = "${join(dir, "data")}"\n`.repeat(0) + text, { mode: 0o600 });
      const result = await runCli(await product(), ["--role=gateway,scheduler", "--config", path], {
        env: { HOME: dir, XDG_CONFIG_HOME: dir },
        timeoutMs: 30_000,
      });
      const told = text.includes(`${value} = 1`) ? refusal(result) : refused(result);
      for (const part of [path, place, what]) expect(told).toContain(part);
    }),
  );
});
