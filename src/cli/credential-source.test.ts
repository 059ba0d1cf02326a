import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { CredentialError } from "../credential/error.ts";
import { run } from "../std/spawn.ts";
import { CliError } from "./context.ts";
import { credentialsFrom } from "./credential-source.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-source-"));
  await put("bin/docker-credential-store", `#!/bin/sh\necho '{"Username":"helper","Secret":"x"}'\n`);
  await chmod(join(dir, "bin/docker-credential-store"), 0o755);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function put(path: string, content: unknown): Promise<string> {
  const full = join(dir, path);
  await mkdir(dirname(full), { recursive: true });
  await writeFile(full, typeof content === "string" ? content : JSON.stringify(content));
  return full;
}

const entry = (host: string, username: string) => ({ [host]: { username, password: "x" } });
const environment = (more: Record<string, string> = {}) => ({
  HOME: join(dir, "home"),
  PATH: join(dir, "bin"),
  ...more,
});

async function user(source: string, env: Record<string, string>, repository?: string) {
  const target = { registry: "r.test", ...(repository === undefined ? {} : { repository }) };
  return (await credentialsFrom(source, target, env))["USERNAME"]?.expose();
}

describe("docker", () => {
  test("is the config of $DOCKER_CONFIG, else of ~/.docker, else the file named", async () => {
    await put("home/.docker/config.json", { auths: entry("r.test", "home") });
    await put("other/config.json", { auths: entry("r.test", "other") });
    const named = await put("named.json", { credHelpers: { "r.test": "store" } });
    expect(await user("docker", environment())).toBe("home");
    expect(await user("docker", environment({ DOCKER_CONFIG: join(dir, "other") }))).toBe("other");
    expect(await user(`docker:${named}`, environment())).toBe("helper");
  });

  test("that has nothing says so, and which helper has nothing either", async () => {
    await put(
      "bin/docker-credential-empty",
      "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n",
    );
    await chmod(join(dir, "bin/docker-credential-empty"), 0o755);
    const named = await put("empty.json", { credsStore: "empty" });
    const error = await user(`docker:${named}`, environment()).catch((thrown: unknown) => thrown);
    expect((error as CredentialError).code).toBe("no_credentials");
    expect(String(error)).toContain("no credential for r.test, and docker-credential-empty has none either");
    const absent = await user("docker", environment({ DOCKER_CONFIG: join(dir, "absent") })).catch(String);
    expect(absent).toContain("absent/config.json cannot be read (ENOENT)");
  });
});

describe("podman", () => {
  test("is the first file that has a credential: runtime, configuration, Docker's, .dockercfg", async () => {
    const env = environment({ XDG_RUNTIME_DIR: join(dir, "run"), DOCKER_CONFIG: join(dir, "docker") });
    await put("home/.dockercfg", entry("https://r.test/v1/", "oldest"));
    expect(await user("podman", env)).toBe("oldest");
    await put("docker/config.json", { auths: entry("r.test", "docker") });
    expect(await user("podman", env)).toBe("docker");
    await put("home/.config/containers/auth.json", { auths: entry("r.test/acme", "config") });
    expect(await user("podman", env, "acme/app")).toBe("config");
    expect(await user("podman", env, "other/app")).toBe("docker");
    await put("run/containers/auth.json", { auths: entry("r.test", "runtime") });
    expect(await user("podman", env, "acme/app")).toBe("runtime");
  });

  test("is $REGISTRY_AUTH_FILE alone where that is set", async () => {
    const file = await put("auth.json", { auths: entry("r.test", "named") });
    expect(await user("podman", environment({ REGISTRY_AUTH_FILE: file }))).toBe("named");
    const empty = await put("none.json", {});
    const error = await user("podman", environment({ REGISTRY_AUTH_FILE: empty })).catch(
      (thrown: unknown) => thrown,
    );
    expect((error as CredentialError).code).toBe("no_credentials");
  });
});

test("what leads back to our own helper is not kept as a secret, and may be used otherwise", async () => {
  await put("bin/docker-credential-oci-node", `#!/bin/sh\necho '{"Username":"ours","Secret":"x"}'\n`);
  await chmod(join(dir, "bin/docker-credential-oci-node"), 0o755);
  const file = await put("ours.json", { credHelpers: { "r.test": "oci-node" } });
  for (const program of ["docker", "podman"]) {
    expect(await user(`${program}:${file}`, environment())).toBe("ours");
    const kept = credentialsFrom(`${program}:${file}`, { registry: "r.test" }, environment(), true);
    await expect(kept).rejects.toMatchObject({ next: expect.stringContaining("--secret NAME") });
  }
});

test("kubernetes is a file with a Secret", async () => {
  const config = JSON.stringify({ auths: entry("r.test", "kube") });
  const file = await put("secret.json", { kind: "Secret", stringData: { ".dockerconfigjson": config } });
  expect(await user(`kubernetes:${file}`, environment())).toBe("kube");
});

test.each(["kubernetes", "keychain", "", "docker-config:x"])(
  "%j is no source, and what is one is told",
  async (source) => {
    const error = await user(source, environment()).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(CliError);
    expect((error as CliError).next).toContain("kubernetes:FILE");
  },
);

test("Ctrl-C ends the helper that is asked, which has a session of its own", async () => {
  const pids = join(dir, "pids");
  await run(["mkfifo", pids]);
  await put("bin/docker-credential-hung", `#!/bin/sh\nsleep 1000 &\necho $$ $! > ${pids}\nwait\n`);
  await chmod(join(dir, "bin/docker-credential-hung"), 0o755);
  const named = await put("hung.json", { credsStore: "hung" });
  const main = join(import.meta.dir, "../main.ts");
  const command = Bun.spawn(
    [process.execPath, main, "index", "r.test/app:1", "--creds-from", `docker:${named}`],
    { env: { PATH: `${join(dir, "bin")}:/usr/bin:/bin`, HOME: dir }, stdout: "ignore", stderr: "pipe" },
  );
  const running = await readFile(pids, "utf8");
  command.kill("SIGINT");
  expect(await new Response(command.stderr).text()).toBe("oci-node: interrupted: no credential was read\n");
  expect(await command.exited).toBe(1);
  for (const pid of running.trim().split(" ")) await ends(Number(pid));
});

/** Comes back once there is no such process, other than one that nobody has waited for yet. */
async function ends(pid: number): Promise<void> {
  for (;;) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    if (stat === "" || / Z /.test(stat)) return;
  }
}
