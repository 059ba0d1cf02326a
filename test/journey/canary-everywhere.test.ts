import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AuthorityStore } from "../../src/cluster/authority-store.ts";
import { EmbeddedPostgres } from "../../src/db/embedded.ts";
import { IdentityKeyStore } from "../../src/secret/identity-key-store.ts";
import { KeyFile } from "../../src/secret/kek.ts";
import { openUnder, singleKey } from "../../src/secret/keyring.ts";
import { newPassword } from "../kit/canary.ts";
import { entries } from "../kit/canary-entries.ts";
import { CanaryWorld } from "../kit/canary-world.ts";
import { says, tell } from "../kit/inside.ts";
import { TestProxy } from "../kit/proxy.ts";
import { push } from "../kit/push.ts";
import { rowImage } from "../kit/quirk-row.ts";
import { serveTls, TestAuthority } from "../kit/tls-server.ts";

const ecr = "111111111111.dkr.ecr.eu-west-1.amazonaws.com";
const pluginAccount = { username: "plugged", password: newPassword() };
const received: string[] = [];
const servers: Bun.Server<undefined>[] = [];
let world: CanaryWorld;
let proxy: TestProxy;
let slow: TestProxy;
let restarted: EmbeddedPostgres | undefined;
let reference: string;
let authority: TestAuthority;
let tlsHost: string;
let ownerToken: string;
let adminToken: string;

beforeAll(async () => {
  authority = await TestAuthority.make();
  const tls = serveTls(await authority.certificateFor("localhost"), () => new Response("no"));
  const receiver = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      received.push(await request.text());
      return new Response("no", { status: received.length % 2 === 0 ? 200 : 500 });
    },
  });
  const clouds = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      if (request.headers.has("x-amz-target")) {
        const authorizationToken = Buffer.from(`AWS:${world.canaries.password("ECR's password")}`).toString(
          "base64",
        );
        return Response.json({
          authorizationData: [{ authorizationToken, expiresAt: Date.now() / 1000 + 43_200 }],
        });
      }
      return Response.json(
        { error: "invalid_grant", error_description: await request.text() },
        { status: 400 },
      );
    },
  });
  servers.push(tls, receiver, clouds);
  tlsHost = `localhost:${tls.port}`;
  world = await CanaryWorld.start(async (made) => {
    proxy = await TestProxy.start(made.registry.host);
    slow = await TestProxy.start(made.registry.host, { bytesPerSecond: 600_000 });
    made.canaries.plant("an identity's plugin", pluginAccount.password);
    await made.admit(pluginAccount);
    const answer = JSON.stringify({
      apiVersion: "credentialprovider.kubelet.k8s.io/v1",
      kind: "CredentialProviderResponse",
      cacheKeyType: "Registry",
      cacheDuration: "1h",
      auth: { [made.registry.host]: pluginAccount },
    });
    const plugin = await made.put(
      "plugin",
      `#!/bin/sh\ncat >/dev/null\necho oh-no >&2\ncat <<'E'\n${answer}\nE\n`,
      0o755,
    );
    const cloud = (host: string) => `[registry.hosts."${host}"]\nconnect = "http://127.0.0.1:${clouds.port}"`;
    return [
      `registry.insecure = ${JSON.stringify([...made.registry.insecureHosts, proxy.host, slow.host, `127.0.0.1:${receiver.port}`])}`,
      `registry.private = ["${tlsHost}"]`,
      'worker.read_deadline = "2s"\nworker.background_fetch = false',
      '[identity]\nissuer = "https://id.example.test/node"',
      `[identities.plug]\ntype = "plugin"\ncommand = [${JSON.stringify(plugin)}]\nmatch_images = ["127.0.0.1:*"]`.replace(
        '"127.0.0.1:*"',
        JSON.stringify(made.registry.host),
      ),
      '[workspaces.default]\nidentities = ["plug"]\nrelease_credentials = true',
      cloud("api.ecr.eu-west-1.amazonaws.com"),
      cloud("oauth2.googleapis.com"),
      cloud("login.microsoftonline.com"),
      `[registry.hosts."proxied.invalid"]\nproxy = "http://u:${made.canaries.password("a proxy's password")}@127.0.0.1:1"`,
      `[registry.hosts."${ecr}"]\nconnect = "http://${made.registry.host}"`,
    ].join("\n");
  });
  readTokens();
  await world.admit({ username: "pusher", password: newPassword() });
  reference = await push(await rowImage(1), world.registry, "team/app:1");
}, 120_000);

afterAll(async () => {
  await world?.stop();
  await restarted?.stop();
  await proxy?.stop();
  await slow?.stop();
  await authority?.discard();
  for (const server of servers) await server.stop(true);
}, 60_000);

/** The gateway gives out a new owner's token at each start. */
function readTokens(): void {
  const context = JSON.parse(readFileSync(join(world.home, "config/oci-node/context.json"), "utf8"));
  ownerToken = world.canaries.plant("the owner's token", context.token as string);
  adminToken = readFileSync(join(world.home, "data/admin-token"), "utf8").trim();
}

const first = (text: string) => text.split("\n")[0] ?? "";

describe("credentials are planted through", () => {
  for (const [name, plant] of entries) {
    test(name, async () => {
      await plant(world, reference, ownerToken);
    });
  }

  test("an identity of the operator's", async () => {
    await world.ok(["image", "build", reference, "--index-only", "--identity", "plug"]);
    await world.ok(["run", reference, "--", "true"]);
  });

  test("tokens of the API, webhooks, and the keys of the node itself", async () => {
    const { canaries } = world;
    canaries.plant("the administrator's token", adminToken);
    const [joinToken = ""] = readFileSync(join(world.home, "data/join-token"), "utf8").split(".");
    canaries.plant("the join token", joinToken);
    for (const role of ["developer", "viewer"]) {
      const args = ["token", "create", "--workspace", "default", "--role", role, "--name", role];
      canaries.plant(`a ${role}'s token`, first(await world.ok(args, { secret: true })));
    }
    const url = `http://127.0.0.1:${servers[1]?.port}/hook/${canaries.password("a webhook's address")}`;
    const [id = "", signing = ""] = (
      await world.ok(["alert", "webhook", "add", "-"], { stdin: `${url}\n`, secret: true })
    ).split("\n");
    canaries.plant("a webhook's signing key (text)", signing);
    canaries.plant("a webhook's signing key (bytes)", Buffer.from(signing.replace("whsec_", ""), "base64"));
    for (let time = 0; time < 2; time += 1) await world.cli(["alert", "webhook", "test", id]);
    expect(received.length).toBeGreaterThan(0);

    const kekText = readFileSync(join(world.home, "data/key"), "utf8").split(" ")[1]?.trim() ?? "";
    canaries.plant("the key-encryption key (bytes)", Buffer.from(kekText, "base64"));
    canaries.plant("the key-encryption key (text)", kekText);
    const passphrase = await world.put("passphrase", `${canaries.password("a passphrase")}\n`);
    const to = join(world.own, "copy-of-the-key");
    await world.ok([
      "key",
      "export",
      "--config",
      world.configFile,
      "--to",
      to,
      "--passphrase-file",
      passphrase,
    ]);

    const kek = await KeyFile.find(join(world.home, "data/key"));
    if (kek === undefined) throw new Error("there is no key");
    const { database } = world.postgres;
    await fetch(`${world.url}/.well-known/jwks.json`);
    const rows = [
      ...(await new AuthorityStore(database).list()).map((row) => ({ kind: "cluster authority", ...row })),
      ...(await new IdentityKeyStore(database).list()).map((row) => ({ kind: "identity key", ...row })),
    ];
    expect(rows.map(({ kind }) => kind)).toEqual(["cluster authority", "identity key"]);
    for (const { kind, id: of, wrappedPrivateKey: sealed, keyId } of rows) {
      const key = await openUnder(singleKey(kek), { kind, id: of, part: "private key" }, { sealed, keyId });
      if (key.includes("PRIVATE KEY")) canaries.privateKey(kind, key.toString());
      else canaries.privateKey(kind, key.toString("base64"));
    }
    canaries.privateKey("a worker's key", readFileSync(await workerKey(), "utf8"));
  });
});

async function workerKey(): Promise<string> {
  for await (const path of new Bun.Glob("**/key.pem").scan({ cwd: join(world.home, "data") }))
    return join(world.home, "data", path);
  throw new Error("the worker has no key");
}

/** Builds with the credential of `--creds`, as its caller has it. */
async function build(of: string, env: Record<string, string>) {
  return await world.cli(["image", "build", of, "--index-only", "--creds", "USERNAME,PASSWORD"], { env });
}

const good = () => {
  const { username, password } = world.registry.accounts.find((each) => each.username === "by-variables") ?? {
    username: "",
    password: "",
  };
  return { USERNAME: username, PASSWORD: password };
};

describe("what can fail, fails:", () => {
  test("wrong passwords, absent images, hosts that are not there or have a stranger's certificate", async () => {
    const wrong = { USERNAME: "by-variables", PASSWORD: world.canaries.password("a wrong password") };
    const results = [
      await build(reference, wrong),
      await build(`${world.registry.host}/team/absent:1`, good()),
      await build("127.0.0.1:1/team/app:1", wrong),
      await build(`${tlsHost}/team/app:1`, wrong),
      await build("no-such-host.invalid/team/app:1", wrong),
      await build("proxied.invalid/team/app:1", wrong),
      await world.cli(["image", "build", `${ecr}/team/app:1`, "--secret", "amazon"]),
      await world.cli(["image", "build", "us-docker.pkg.dev/p/team/app:1", "--secret", "google"]),
      await world.cli(["image", "build", "acme.azurecr.io/team/app:1", "--secret", "azure"]),
      await world.cli(["image", "build", "tokens.invalid/team/app:1", "--secret", "bearer"]),
      await world.cli(["secret", "create", "r.example"], { stdin: `PASSWORD=${wrong.PASSWORD}\n` }),
      await world.cli(["secret", "create", "r.example"], { stdin: `${wrong.PASSWORD}\n` }),
      await world.cli(["secret", "create", "r.example"], {
        stdin: `USERNAME=u\nPASSWORD=${wrong.PASSWORD}\0\n`,
      }),
    ];
    expect(results.map(({ code }) => code)).toEqual(results.map(() => 1));
    for (const body of [
      `{"registry":"r.example","credentials":{"USERNAME":"u","PASSWORD":${wrong.PASSWORD}}}`,
      { registry: "r.example", credentials: wrong.PASSWORD },
      { registry: "r.example", credentials: { [wrong.PASSWORD]: wrong.PASSWORD } },
      { registry: "r.example", credentials: { USERNAME: "u", PASSWORD: `${wrong.PASSWORD}\n` } },
    ])
      expect((await world.raw("SecretService/CreateSecret", body, ownerToken)).status).toBe(400);
    const unknown = world.canaries.plant("a token that nobody knows", `ocn_${newPassword()}x`);
    expect((await world.raw("SecretService/ListSecrets", {}, unknown)).status).toBe(401);
  });

  test("blobs that end, change, hang or are refused while they are read, and a container that takes too much memory", async () => {
    const faulty = reference.replace(world.registry.host, proxy.host);
    expect((await build(faulty, good())).code).toBe(0);
    for (const action of [
      { kind: "status", status: 500 },
      { kind: "truncate", afterBytes: 1000 },
      { kind: "corrupt", atByte: 100 },
      { kind: "hang" },
    ] as const) {
      await proxy.setFaults({ match: "GET .*blobs", action });
      const { code } = await world.cli(["run", faulty, "--", "md5sum", "/data/two"], { timeoutMs: 40_000 });
      expect([action.kind, code === 0]).toEqual([action.kind, false]);
    }
    await proxy.setFaults();
    const hungry = "x=0123456789abcdef; while :; do x=$x$x; done";
    const starved = await world.cli(["run", "--memory", "16Mi", reference, "--", "sh", "-c", hungry]);
    expect([starved.code, starved.stderr]).toEqual([137, expect.stringContaining("memory")]);
  });

  test("a credential that is revoked while a container reads", async () => {
    const { tokens, accounts } = world.registry;
    if (tokens === undefined) throw new Error("the registry has no tokens");
    tokens.tokenSeconds = 3;
    const lazily = await push(await rowImage(50), world.registry, "team/lazy:1");
    expect((await build(lazily, good())).code).toBe(0);
    const script = "touch /tmp/up; while [ ! -e /tmp/go ]; do sleep 0.1; done; md5sum /data/two; sleep 100";
    const id = await world.ok(["run", "-d", lazily, "--", "sh", "-c", script]);
    await until("the container runs", () => says(id, "up"));
    await world.registry.setAccounts([]);
    await world.roles.get("scheduler")?.waitFor(/refus/i, 30_000);
    await tell(id, "go");
    await world.roles.get("worker")?.waitFor(/a part of the image could not be read/);
    await world.ok(["logs", id]);
    await world.ok(["inspect", id, "--json"]);
    expect((await world.cli(["run", lazily])).code).toBe(125);
    await world.ok(["stop", "--timeout", "1", id]);
    tokens.tokenSeconds = 300;
    await world.registry.setAccounts(accounts);
  });

  test("an index child that is killed, a database that restarts, a worker and a scheduler that are killed", async () => {
    const gateway = world.roles.get("gateway")?.pid;
    const building = build(reference.replace(world.registry.host, slow.host), good());
    await until("there is an index child", () => killIndexChild(gateway ?? 0));
    const { code, stderr } = await building;
    expect([code, stderr]).toEqual([1, expect.stringMatching(/index/)]);

    const id = await world.ok(["run", "-d", reference, "--", "sleep", "1000"]);
    await world.endRole("worker", "SIGKILL");
    await world.endRole("scheduler", "SIGKILL");
    const folder = world.postgres.dataPath.replace(/\/postgres\/data$/, "");
    const pidFile = join(world.postgres.dataPath, "postmaster.pid");
    process.kill(Number(first(readFileSync(pidFile, "utf8"))), "SIGINT");
    await until("the database is away", async () => (await world.cli(["ps"])).code !== 0);
    restarted = await EmbeddedPostgres.start({
      dataDir: folder,
      durable: false,
      signal: AbortSignal.timeout(30_000),
    });
    await until("the database is there again", async () => (await world.cli(["ps"])).code === 0);
    await world.startRole("scheduler");
    await world.startRole("worker");
    await world.ok(["stop", "--timeout", "1", id]);
    await world.ok(["run", reference, "--", "true"]);
  });

  test("every role, by SIGSEGV and SIGABRT under no limit of cores; none leaves one", async () => {
    for (const role of ["worker", "scheduler", "gateway"] as const) {
      for (const signal of ["SIGSEGV", "SIGABRT"] as const) {
        const pid = world.roles.get(role)?.pid;
        expect(readFileSync(`/proc/${pid}/limits`, "utf8")).toMatch(/Max core file size\s+0\s+0/);
        await world.endRole(role, signal);
        await world.startRole(role);
      }
    }
    readTokens();
    expect(await world.cores()).toEqual([]);
    await world.ok(["run", reference, "--", "true"]);
  });
});

describe("of what was planted nothing is found", () => {
  test("in what anybody said, answers on the wire and logs of all levels included, and in a dump of the database", async () => {
    for (const args of [
      ["secret", "ls"],
      ["secret", "health"],
      ["audit"],
      ["alert", "ls"],
      ["ps", "--all"],
      ["key", "ls"],
    ])
      await world.ok([...args, "--json"]);
    // What gives a credential out on purpose says it on standard output, and nowhere else.
    await world.ok(["credential", "get", world.registry.host, "--secret", "by-input"], { secret: true });
    await world.ok(["credential", "kubernetes", world.registry.host, "--secret", "by-input"], {
      secret: true,
    });
    expect(world.canaries.entries).toContain("ECR's password");
    expect(world.canaries.entries.length).toBeGreaterThan(35);
    expect(world.said.length).toBeGreaterThan(60);
    const log = world.said.find(({ who }) => who === "gateway")?.text ?? "";
    expect(log).toContain('"level":"debug"');
    expect(await world.inWords()).toEqual([]);
  });

  test("in arguments and environments, at any moment of any process", () => {
    world.watch.look();
    expect(world.watch.looks).toBeGreaterThan(100);
    for (const program of ["oci-node", "oci-node-holder", "conmon", "runc"])
      expect([...world.watch.seen]).toContain(program);
    expect(world.watch.hits).toEqual([]);
  });

  test("in any file but those that are there to hold it, which only their owner can read", async () => {
    const expected = new Map<string, string>();
    for (const hit of await world.inFiles()) expected.set(hit.place.replace(`${world.home}/`, ""), hit.entry);
    const places = [...expected.keys()].toSorted();
    const key = (await workerKey()).replace(`${world.home}/`, "");
    expect(places).toEqual(
      ["config/oci-node/context.json", "data/admin-token", "data/join-token", "data/key", key].toSorted(),
    );
    for (const place of places)
      expect([place, ((await stat(join(world.home, place))).mode & 0o777).toString(8)]).toEqual([
        place,
        "600",
      ]);
  });

  test("but is, once it is left somewhere on purpose", async () => {
    const left = join(world.home, "data/worker/left");
    const { password } = world.registry.accounts.find(({ username }) => username === "by-file") ?? {};
    await writeFile(left, Buffer.from(`by-file:${password}`).toString("base64"));
    const hits = await world.inFiles();
    expect(hits.filter(({ place }) => place === left)).toMatchObject([{ entry: "--creds-file" }]);
    world.said.push({ who: "nobody", text: JSON.stringify({ left: password }) });
    expect(await world.inWords()).toMatchObject([{ entry: "--creds-file", form: "clear", place: "nobody" }]);
    const child = Bun.spawn(["sleep", "100"], { env: { LEFT: String(password), OF: world.home } });
    world.watch.root(child.pid);
    world.watch.look();
    child.kill();
    await child.exited;
    expect(world.watch.hits).toMatchObject([{ entry: "--creds-file", form: "clear" }]);
  });
});

/** Asks until it is so. */
async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await Bun.sleep(20);
  }
}

/** Kills one process that indexes for the gateway, if there is one; one that is about to end is none. */
function killIndexChild(gateway: number): boolean {
  const children = Bun.spawnSync(["pgrep", "-P", String(gateway), "-f", "internal"])
    .stdout.toString()
    .trim();
  const [pid] = children.split("\n").filter((line) => line !== "");
  return pid !== undefined && Bun.spawnSync(["kill", "-KILL", pid]).success;
}
