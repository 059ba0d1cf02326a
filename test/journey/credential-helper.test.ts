import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryRun } from "../../src/std/spawn.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { TestNode } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { refusal, type Secret, World } from "../kit/world.ts";

const password = `canary-${randomBytes(12).toString("hex")}`;
const account = { username: "robot", password };
const ecr = "111111111111.dkr.ecr.us-east-1.amazonaws.com";
const notFound = "credentials not found in native keychain\n";
const ecrEndsAt = new Date(Math.floor(Date.now() / 1000) * 1000 + 12 * 3600_000);

let world: World;
/** Another registry with the same account, of which the workspace knows nothing at first. */
let other: TestRegistry;
let ecrApi: Bun.Server<undefined>;
let dir: string;
let reference: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-helper-"));
  ecrApi = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: answerEcr });
  other = await TestRegistry.start({ auth: "bearer", accounts: [account] });
  const config = await put(
    "config.toml",
    `[workspaces.default]\nrelease_credentials = true\n[registry.hosts."api.ecr.us-east-1.amazonaws.com"]\nconnect = "http://127.0.0.1:${ecrApi.port}"\n`,
  );
  world = await World.start({
    registry: { auth: "htpasswd", accounts: [account] },
    node: {
      args: [
        "--config",
        config,
        "--log-level",
        "debug",
        ...other.insecureHosts.flatMap((host) => ["--insecure-registry", host]),
      ],
    },
  });
  reference = (await world.build("team/app:1")).reference;
  const [executable = ""] = await product();
  await mkdir(join(dir, "bin"));
  await symlink(executable, join(dir, "bin/docker-credential-oci-node"));
  await symlink(executable, join(dir, "bin/oci-node-credential-provider"));
});
afterAll(async () => {
  await world.stop();
  await other.stop();
  await ecrApi.stop(true);
  await rm(dir, { recursive: true, force: true });
});

/** Amazon's GetAuthorizationToken (AWS JSON 1.1). */
function answerEcr(): Response {
  const authorizationToken = Buffer.from("AWS:issued-token").toString("base64");
  return Response.json({
    authorizationData: [{ authorizationToken, expiresAt: ecrEndsAt.getTime() / 1000 }],
  });
}

async function put(name: string, content: string): Promise<string> {
  const path = join(dir, name);
  await writeFile(path, content, { mode: 0o600 });
  return path;
}

const env = (node: TestNode = world.node) => ({
  PATH: `${join(dir, "bin")}:/usr/local/bin:/usr/bin:/bin`,
  HOME: node.home,
  XDG_CONFIG_HOME: join(node.home, "config"),
});

/** Calls the executable by the name of a link, as Docker and the kubelet do. */
const linked = (argv: string[], stdin: string, more: Record<string, string> = {}) =>
  tryRun(argv, { env: { ...env(), ...more }, stdin, timeoutMs: 60_000 });
const helper = (action: string, stdin = "", more = {}) =>
  linked(["docker-credential-oci-node", action], stdin, more);
const skopeo = (args: string[], stdin?: string) =>
  tryRun(["skopeo", "--insecure-policy", ...args], {
    env: env(),
    timeoutMs: 60_000,
    ...(stdin === undefined ? {} : { stdin }),
  });
const secrets = () => world.node.json<Secret[]>(["secret", "ls"]);

/** An authentication file that names our helper for a registry. */
const authFile = (host: string) =>
  put(`auth-${host.split(":")[1]}.json`, JSON.stringify({ auths: {}, credHelpers: { [host]: "oci-node" } }));

describe("skopeo with the helper by link name", () => {
  test("pulls a private image from a real registry", async () => {
    const target = join(dir, "pulled");
    const copy = (file: string) =>
      skopeo([
        ...["copy", "--quiet", "--preserve-digests", "--src-tls-verify=false", "--src-authfile", file],
        ...[`docker://${reference}`, `oci:${target}:latest`],
      ]);
    const without = await copy(await put("empty.json", "{}"));
    expect(without.stderr).toContain("authentication required");
    expect(await copy(await authFile(world.registry.host))).toMatchObject({ exitCode: 0 });
    const { manifests } = await Bun.file(join(target, "index.json")).json();
    expect(manifests[0].digest).toBe((await busyboxImage()).manifestDigest);
  });

  test("logs in to another: the workspace keeps the secret, and logging out removes it", async () => {
    const image = await push(await busyboxImage(), other, "team/app:1");
    const file = await authFile(other.host);
    const login = ["login", "--tls-verify=false", "--authfile", file, "--username", account.username];
    const logged = await skopeo([...login, "--password-stdin", other.host], password);
    expect(logged).toMatchObject({ exitCode: 0 });
    const kept = (await secrets()).find(({ registry }) => registry === other.host);
    expect(kept).toMatchObject({ type: "basic", principal: "robot", version: 1 });
    expect(
      await skopeo(["inspect", "--tls-verify=false", "--authfile", file, `docker://${image}`]),
    ).toMatchObject({
      exitCode: 0,
    });
    expect(await skopeo(["logout", "--authfile", file, other.host])).toMatchObject({ exitCode: 0 });
    expect((await secrets()).some(({ registry }) => registry === other.host)).toBe(false);
  });
});

describe("the helper's protocol", () => {
  test("answers get under each spelling, and what it does not have by the words that Docker knows", async () => {
    for (const server of [
      world.registry.host,
      `https://${world.registry.host}`,
      `${world.registry.host}/v2/\n`,
    ]) {
      const { exitCode, stdout } = await helper("get", server);
      expect(exitCode).toBe(0);
      expect(JSON.parse(stdout)).toEqual({ ServerURL: server.trim(), Username: "robot", Secret: password });
    }
    expect(await helper("get", "https://index.docker.io/v1/")).toMatchObject({
      exitCode: 1,
      stdout: notFound,
    });
    expect(await helper("get", "ghcr.io")).toMatchObject({ exitCode: 1, stdout: notFound });
    expect(await helper("get", " \n")).toMatchObject({ exitCode: 1, stdout: "no credentials server URL\n" });
    expect((await helper("get", "$(id)")).exitCode).toBe(1);
  });

  test("lists addresses and user names", async () => {
    const { exitCode, stdout } = await helper("list", "unused");
    expect([exitCode, JSON.parse(stdout)]).toEqual([0, { [world.registry.host]: "robot" }]);
  });

  test("stores the next version for an account, and refuses a second account and what it cannot read", async () => {
    const host = world.registry.host;
    const store = (value: unknown) =>
      helper("store", typeof value === "string" ? value : JSON.stringify(value));
    const version = async () => (await secrets()).find(({ registry }) => registry === host)?.version;
    const given = { ServerURL: host, Username: "robot", Secret: password };
    expect(await store(given)).toEqual({ exitCode: 0, stdout: "", stderr: "" });
    expect(await version()).toBe(1);
    const { accounts } = world.registry;
    const rotated = `${password}-rotated`;
    const wrong = await store({ ...given, Secret: rotated });
    expect([wrong.exitCode, await version()]).toEqual([1, 1]);
    await world.registry.setAccounts([{ username: "robot", password: rotated }]);
    expect(await store({ ...given, Secret: rotated })).toMatchObject({ exitCode: 0 });
    expect(await version()).toBe(2);
    await world.registry.setAccounts(accounts);
    expect(await store(given)).toMatchObject({ exitCode: 0 });
    const second = await store({ ...given, Username: "alice" });
    expect(second.exitCode).toBe(1);
    expect(second.stdout).toContain("another account");
    expect((await store({ ...given, Username: "<token>" })).stdout).toContain("another account");
    const token = await store({ ServerURL: ecr, Username: "AWS", Secret: password });
    expect(token.stdout).toContain("ends after 12 hours");
    expect((await store({ ...given, ServerURL: "" })).stdout).toBe("no credentials server URL\n");
    expect((await store({ ...given, Username: "" })).stdout).toBe("no credentials username\n");
    expect((await store(`{"Secret":"${password}`)).stdout).toBe("no credentials server URL\n");
    expect(second.stdout + token.stdout).not.toContain(password);
    expect((await secrets()).length).toBe(1);
  });

  test("erases nothing that images use, and says so", async () => {
    const { exitCode, stdout } = await helper("erase", world.registry.host);
    expect(exitCode).toBe(1);
    expect(stdout).toMatch(/^oci-node: .+img-.+\n$/);
    expect(await helper("erase", "ghcr.io")).toMatchObject({ exitCode: 1, stdout: notFound });
    expect((await secrets()).length).toBe(1);
  });

  test("tells its version and how it is called", async () => {
    expect((await helper("version")).stdout).toMatch(/^docker-credential-oci-node \(oci-node\) \S+\n$/);
    expect(await helper("format")).toMatchObject({ exitCode: 1, stdout: expect.stringContaining("Usage: ") });
  });
});

describe("the kubelet's plugin by link name", () => {
  const ask = (image: string, more: object = {}, args: string[] = []) =>
    linked(
      [join(dir, "bin/oci-node-credential-provider"), ...args],
      JSON.stringify({
        apiVersion: "credentialprovider.kubelet.k8s.io/v1",
        kind: "CredentialProviderRequest",
        image,
        ...more,
      }),
    );

  test("answers for an image of a registry that the workspace knows, and without a credential for others", async () => {
    const { exitCode, stdout } = await ask(`${world.registry.host}/team/app`);
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      apiVersion: "credentialprovider.kubelet.k8s.io/v1",
      kind: "CredentialProviderResponse",
      cacheKeyType: "Registry",
      cacheDuration: "1m0s",
      auth: { [world.registry.host]: { username: "robot", password } },
    });
    const none = await ask("docker.io/library/debian", {
      apiVersion: "credentialprovider.kubelet.k8s.io/v1beta1",
    });
    expect(JSON.parse(none.stdout)).toEqual({
      apiVersion: "credentialprovider.kubelet.k8s.io/v1beta1",
      kind: "CredentialProviderResponse",
      cacheKeyType: "Image",
      cacheDuration: "0s",
    });
  });

  test("fails with a message for the kubelet's log, without a response", async () => {
    const bad = await ask("x", { kind: "Pod" });
    expect([bad.exitCode, bad.stdout]).toEqual([1, ""]);
    expect(bad.stderr).toContain("kind is wrong");
    const absent = await ask(`${world.registry.host}/team/app`, {}, ["--secret", "absent"]);
    expect([absent.exitCode, absent.stdout]).toEqual([1, ""]);
    expect(absent.stderr).toContain("absent");
    expect((await ask("x", {}, ["--other"])).exitCode).toBe(2);
  });
});

describe("credential get", () => {
  test("tells the end of what an issuer made, and how far it reaches", async () => {
    const keys = { AWS_ACCESS_KEY_ID: "AKIATEST", AWS_SECRET_ACCESS_KEY: password };
    await world.node.ok(["secret", "create", ecr, "--creds", Object.keys(keys).join()], { env: keys });
    expect(await world.node.json(["credential", "get", `${ecr}/my-image:latest`])).toEqual({
      registry: ecr,
      username: "AWS",
      secret: "issued-token",
      validUntil: ecrEndsAt.toISOString(),
      scope: expect.stringContaining("every repository of account 111111111111"),
      secretName: "oci-registry-111111111111-dkr-ecr-us-east-1-amazonaws-com",
    });
    const kubelet = await linked(
      [...(await product()), "credential", "kubelet"],
      `{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderRequest","image":"${ecr}/my-image"}`,
    );
    expect(JSON.parse(kubelet.stdout)).toMatchObject({
      cacheDuration: "1h0m0s",
      auth: { [ecr]: { username: "AWS", password: "issued-token" } },
    });
  });

  test("prints a pull Secret for Kubernetes, with whose content skopeo pulls", async () => {
    const args = ["credential", "kubernetes", world.registry.host, ecr, "--name", "regcred"];
    const manifest = JSON.parse(await world.node.ok(args));
    expect(manifest).toMatchObject({
      kind: "Secret",
      metadata: { name: "regcred", annotations: { "oci-node/valid-until": ecrEndsAt.toISOString() } },
      type: "kubernetes.io/dockerconfigjson",
    });
    const content = Buffer.from(manifest.data[".dockerconfigjson"], "base64").toString();
    const file = await put("pull-secret.json", content);
    const pull = ["inspect", "--tls-verify=false", "--authfile", file, `docker://${reference}`];
    expect(await skopeo(pull)).toMatchObject({ exitCode: 0 });
  });

  test("of several accounts wants a name, which OCI_NODE_SECRET gives Docker", async () => {
    const alice = { USERNAME: "alice", PASSWORD: "of-alice" };
    const name = "of-alice";
    const create = ["secret", "create", world.registry.host, "--name", name, "--creds", "USERNAME,PASSWORD"];
    await world.node.ok([...create, "--unchecked"], { env: alice });
    const told = refusal(await world.node.cli(["credential", "get", world.registry.host]), [password]);
    expect(told).toContain("of-alice (alice)");
    const chosen = await helper("get", world.registry.host, { OCI_NODE_SECRET: name });
    expect(JSON.parse(chosen.stdout).Username).toBe("alice");
    const elsewhere = await helper("get", ecr, { OCI_NODE_SECRET: name });
    expect(JSON.parse(elsewhere.stdout).Username).toBe("AWS");
    await world.node.ok(["secret", "rm", name]);
  });

  test("is in the log by token, secret and version, and no value is", async () => {
    const lines = world.node.records.filter(({ message }) => message === "gave out a registry credential");
    expect(lines.length).toBeGreaterThan(5);
    for (const line of lines) {
      expect(line).toMatchObject({
        token: expect.any(String),
        secret: expect.any(String),
        version: expect.any(Number),
      });
    }
    expect(world.node.log).not.toMatch(new RegExp(`${password}|issued-token`));
  });
});

describe("a build", () => {
  test.each([
    ["a helper of Docker's", "docker"],
    ["Podman's auth.json", "podman"],
    ["a Secret of Kubernetes on standard input", "kubernetes:-"],
  ])("takes its credentials from %s", async (_, source) => {
    const image = await push(await busyboxImage(), other, "team/app:1");
    const auth = Buffer.from(`robot:${password}`).toString("base64");
    await put("config.json", JSON.stringify({ credsStore: "test" }));
    const podman = await put("podman.json", JSON.stringify({ auths: { [`${other.host}/team`]: { auth } } }));
    const answer = JSON.stringify({ ServerURL: other.host, Username: "robot", Secret: password });
    const script = `#!/bin/sh\n[ "$(cat)" = ${other.host} ] && [ $1 = get ] && echo '${answer}'\n`;
    await writeFile(join(dir, "bin/docker-credential-test"), script, { mode: 0o755 });
    const config = Buffer.from(JSON.stringify({ auths: { [other.host]: { auth } } })).toString("base64");
    const result = await world.node.cli(["image", "build", image, "--index-only", "--creds-from", source], {
      env: { PATH: env().PATH, DOCKER_CONFIG: dir, REGISTRY_AUTH_FILE: podman },
      stdin: `kind: Secret\ntype: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: ${config}\n`,
    });
    expect(result.stderr).not.toContain(password);
    expect([result.code, result.stderr]).toEqual([0, expect.stringContaining("built img-")]);
    await world.node.ok(["image", "rm", image]);
    await world.node.ok(["secret", "rm", `oci-registry-${other.host.replaceAll(/[.:]/g, "-")}`]);
  });
});

test("where the operator does not allow it, a stored password stays in the node", async () => {
  const strict = await TestNode.start({ insecureRegistries: [world.registry.host] });
  try {
    const build = ["image", "build", reference, "--index-only", "--creds", "USERNAME,PASSWORD"];
    await strict.ok(build, { env: world.env });
    const told = refusal(await strict.cli(["credential", "get", world.registry.host]), [password]);
    expect(told).toContain("[workspaces.default] release_credentials = true");
    const asked = await tryRun(["docker-credential-oci-node", "get"], {
      env: env(strict),
      stdin: world.registry.host,
    });
    expect(asked.exitCode).toBe(1);
    expect(asked.stdout).toContain("release_credentials = true");
    expect(asked.stdout + strict.log).not.toContain(password);
  } finally {
    await strict.stop();
  }
});
