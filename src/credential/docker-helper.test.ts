import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DockerConfig, findInDockerConfig } from "./docker-config.ts";
import { askDockerHelper, helperEnvironment } from "./docker-helper.ts";
import { CredentialError } from "./error.ts";

const secret = "hunter2";
let dir: string;
let env: Record<string, string>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-helper-"));
  env = { PATH: `${dir}:/usr/bin:/bin`, HOME: dir, AWS_SECRET_ACCESS_KEY: secret, AWS_PROFILE: "prod" };
  await helper(
    "keeps",
    `server=$(cat); echo "$1 $server" >> ${dir}/asked
    case "$server" in
      ghcr.io|https://index.docker.io/v1/) echo '{"ServerURL":"'$server'","Username":"alice","Secret":"${secret}"}' ;;
      https://r.test) echo '{"ServerURL":"x","Username":"<token>","Secret":"${secret}"}' ;;
      *) echo "credentials not found in native keychain"; exit 1 ;;
    esac`,
  );
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function helper(name: string, script: string, folder = dir): Promise<void> {
  const path = join(folder, `docker-credential-${name}`);
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
}

async function ask(name: string, registry = "ghcr.io", options: object = {}) {
  const found = await askDockerHelper(name, registry, [registry], { env, ...options });
  return found && Object.fromEntries(Object.entries(found).map(([key, value]) => [key, value.expose()]));
}

async function refusal(asked: Promise<unknown>): Promise<CredentialError> {
  const error = await asked.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(CredentialError);
  const { message, next, cause } = error as CredentialError;
  expect(`${message} ${next} ${Bun.inspect(cause)}`).not.toContain(secret);
  return error as CredentialError;
}

describe("a credential helper", () => {
  test("gives user name and password, or an identity token beside <token>", async () => {
    expect(await ask("keeps")).toEqual({ USERNAME: "alice", PASSWORD: secret });
    expect(await ask("keeps", "https://r.test")).toEqual({ REGISTRY_IDENTITY_TOKEN: secret });
  });

  test("that has nothing is not a failure", async () => {
    expect(await ask("keeps", "other.test")).toBeUndefined();
    await helper("empty", `echo '{"ServerURL":"","Username":"","Secret":""}'`);
    expect(await ask("empty")).toBeUndefined();
  });

  test("is asked under the spellings that Docker writes", async () => {
    await rm(join(dir, "asked"), { force: true });
    const find = (registry: string, config: DockerConfig) =>
      findInDockerConfig({ registry }, config, { owner: "it", namespaces: false, helpers: { env } });
    expect(await find("docker.io", { credsStore: "keeps", auths: { "docker.io": {} } })).toBeDefined();
    expect(await find("r.test", { credHelpers: { "r.test": "keeps" } })).toBeDefined();
    expect(
      await find("s.test", { credsStore: "keeps", auths: { "https://s.test/v2/": {} } }),
    ).toBeUndefined();
    expect((await readFile(join(dir, "asked"), "utf8")).trim().split("\n")).toEqual([
      "get https://index.docker.io/v1/",
      "get r.test",
      "get https://r.test",
      "get https://s.test/v2/",
      "get s.test",
      "get https://s.test",
    ]);
  });

  test("of credHelpers wins over credsStore, and that over an entry of its own, which is there for what neither knows", async () => {
    await helper("first", `echo '{"Username":"first","Secret":"x"}'`);
    await helper("second", `echo '{"Username":"second","Secret":"x"}'`);
    const user = async (config: DockerConfig) => {
      const options = { owner: "it", namespaces: false, helpers: { env } };
      return (await findInDockerConfig({ registry: "r.test" }, config, options))?.["USERNAME"]?.expose();
    };
    const auths = { "r.test": { username: "own", password: "x" } };
    expect(await user({ credHelpers: { "r.test": "first" }, credsStore: "second", auths })).toBe("first");
    expect(await user({ credHelpers: { "s.test": "first" }, credsStore: "second", auths })).toBe("second");
    expect(await user({ credHelpers: { "r.test": "" }, credsStore: "second", auths })).toBe("own");
    await helper("none", `echo "credentials not found in native keychain"; exit 1`);
    expect(await user({ credsStore: "none", auths })).toBe("own");
    await helper("broken", "exit 2");
    await refusal(user({ credsStore: "broken", auths }));
  });

  test("sees where it is and which profile is meant, but no keys", async () => {
    await helper("env", `env > ${dir}/env; echo '{"Username":"u","Secret":"s"}'`);
    await ask("env");
    const seen = await readFile(join(dir, "env"), "utf8");
    expect(seen).toContain(`HOME=${dir}\n`);
    expect(seen).toContain("AWS_PROFILE=prod\n");
    expect(seen).not.toContain(secret);
    const key = (value: string) => helperEnvironment({ GOOGLE_APPLICATION_CREDENTIALS: value });
    expect(key('{"private_key":"x"}')).toEqual({});
    expect(key("/key.json")).toEqual({ GOOGLE_APPLICATION_CREDENTIALS: "/key.json" });
  });

  test.each(["../evil", "a/b", "", "a b", "a;b", "$(x)", "a\0b", "ä", "x".repeat(65)])(
    "is not looked for under the name %j",
    async (name) => {
      expect((await refusal(ask(name))).code).toBe("bad_value");
    },
  );

  test("that is not on PATH is named, and what lies in the folder of the moment is not taken", async () => {
    const error = await refusal(ask("absent"));
    expect(error.code).toBe("provider_failed");
    expect(error.message).toContain("docker-credential-absent, which is not on PATH");
    const here = join(dir, "here");
    await mkdir(here);
    await helper("here", `echo '{"Username":"u","Secret":"s"}'`, here);
    const before = process.cwd();
    process.chdir(here);
    try {
      for (const PATH of [".:/usr/bin", ":/usr/bin", "here:/usr/bin"]) {
        await refusal(ask("here", "ghcr.io", { env: { ...env, PATH } }));
      }
    } finally {
      process.chdir(before);
    }
  });
});

describe("a hostile credential helper", () => {
  test.each([
    ["says its secret on standard error and fails", `echo ${secret} >&2; exit 1`],
    ["says its secret on standard output and fails", `echo "cannot: ${secret}"; exit 1`],
    ["answers with garbage", `echo '${secret}'`],
    ["answers with half an object", `printf '{"Username":"u","Secret":"${secret}'`],
    ["answers with a user name alone", `echo '{"Username":"${secret}"}'`],
    ["answers with numbers", `echo '{"Username":1,"Secret":2}'`],
    ["answers with an array", `echo '["${secret}"]'`],
    ["answers with NUL", `printf '{"Username":"u","Secret":"${secret}\\000"}'`],
    ["answers with an escaped NUL", `printf '%s' '{"Username":"u","Secret":"${secret}\\u0000"}'`],
    ["answers with a line break in the secret", `printf '%s' '{"Username":"u","Secret":"${secret}\\nx"}'`],
    ["answers with no secret", `echo '{"Username":"u","Secret":""}'`],
    ["answers with a secret of 32 KiB", `printf '{"Username":"u","Secret":"%32768d"}' 0`],
    ["answers without end", `exec yes ${secret}`],
    ["ends by a signal", `echo ${secret}; kill -9 $$`],
    ["is not executable text", "\u0000\u0001"],
  ])("that %s is refused by name, and nothing of it is repeated", async (_, script) => {
    await helper("hostile", script);
    const error = await refusal(ask("hostile"));
    expect(["provider_failed", "bad_value", "missing_key"]).toContain(error.code);
    expect(error.next).toBeDefined();
  });

  test("that hangs is killed, whatever number of spellings is left", async () => {
    await helper("hangs", "exec sleep 1000");
    const started = performance.now();
    const asked = askDockerHelper("hangs", "r.test", ["a", "b", "c"], { env, timeoutMs: 300 });
    expect((await refusal(asked)).message).toBe("docker-credential-hangs did not answer in time for r.test");
    expect(performance.now() - started).toBeLessThan(5000);
  });
});
