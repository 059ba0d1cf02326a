import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryRun } from "../../src/std/spawn.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { parseExposition } from "../kit/exposition.ts";
import { leftovers, sweep } from "../kit/leftovers.ts";
import { type CliOptions, runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { push } from "../kit/push.ts";
import { type Received, type Receiver, startReceiver } from "../kit/receiver.ts";
import { TestRegistry } from "../kit/registry.ts";
import { writeRolesConfig } from "../kit/roles.ts";
import { credentialVariables, refusal, withCredentials } from "../kit/world.ts";

interface Payload {
  readonly type: string;
  readonly timestamp: string;
  readonly data: Record<string, unknown>;
}

const path = "/services/the-token-in-the-address-of-a-webhook";
let dir: string;
let command: readonly string[];
let registry: TestRegistry;
let receiver: Receiver;
let node: Program;
let config: string;
let env: Record<string, string>;
let reference: string;
let secretName: string;
let containerId: string;
let webhookId: string;
/** Logs of the nodes that ended. */
let logs = "";

const cli = (args: readonly string[], options: CliOptions = {}) =>
  runCli(command, args, { ...options, env: { ...env, ...options.env } });

async function ok(args: readonly string[], options: CliOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await cli(args, options);
  if (code !== 0)
    throw new Error(`${args.join(" ")} exited with ${code}: ${stdout}${stderr}\n${node.output.slice(-3000)}`);
  return stdout.trim();
}

const json = async <T = Record<string, unknown>>(...args: string[]) =>
  JSON.parse(await ok([...args, "--json"])) as T;

async function startNode(): Promise<void> {
  node = new Program([...command, "--role=gateway,scheduler,worker", "--config", config], { env });
  await node.waitFor(/^ready /m, 60_000);
}

async function endNode(signal: NodeJS.Signals): Promise<void> {
  await node.stop(signal, 30_000);
  logs += node.output;
}

beforeAll(async () => {
  command = await product();
  dir = await mkdtemp(join(tmpdir(), "oci-node-alerts-"));
  await chmod(dir, 0o755);
  registry = await TestRegistry.start({ auth: "htpasswd" });
  reference = await push(await busyboxImage(), registry, "app:1");
  receiver = startReceiver();
  env = { HOME: dir, XDG_CONFIG_HOME: join(dir, "xdg") };
  config = await writeRolesConfig(dir, registry, [`registry.hosts."${receiver.host}".insecure = true`]);
  await startNode();
  await ok(["image", "build", reference, ...withCredentials], { env: credentialVariables(registry) });
  secretName = (await json<{ name: string }[]>("secret", "ls"))[0]?.name ?? "";
  containerId = await ok(["run", "-d", reference, "--", "sleep", "1000"]);
}, 180_000);
afterAll(async () => {
  await node?.stop("SIGKILL");
  await receiver?.stop();
  await registry?.stop();
  await sweep(dir);
  await rm(dir, { recursive: true, force: true });
}, 60_000);

/** Makes the registry take another password, and has the secret tried with the one that it holds. */
async function revoke(): Promise<void> {
  const { username } = registry.account;
  await registry.setAccounts([{ username, password: crypto.randomUUID() }]);
  await ok(["secret", "health", secretName, "--check"]);
}

const renew = () =>
  ok(["secret", "update", secretName, ...withCredentials], { env: credentialVariables(registry) });

/** What the webhook gets next, beyond the deliveries that it had. */
async function next(had: number): Promise<{ received: Received; payload: Payload }> {
  const received = (await receiver.waitFor(had + 1))[had] as Received;
  return { received, payload: JSON.parse(received.body) as Payload };
}

describe("a webhook", () => {
  test("is made from standard input, shows what signs its deliveries once, and is tried", async () => {
    const made = JSON.parse(
      await ok(["alert", "webhook", "add", "-", "--json"], { stdin: `http://${receiver.host}${path}\n` }),
    );
    expect(made).toMatchObject({ host: receiver.host, pending: 0, disabledAt: null });
    expect(made.signingSecret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    webhookId = made.id;
    receiver.secrets.set(path, made.signingSecret);
    expect(await ok(["alert", "webhook", "test", webhookId])).toBe("taken: 204");
    const { received, payload } = await next(0);
    expect([received.signed, received.path, payload.type]).toEqual([true, path, "test"]);
    expect(received.headers.get("user-agent")).toMatch(/^oci-node\/\d/);
    const shown =
      (await cli(["alert", "webhook", "ls"])).stdout +
      (await cli(["alert", "webhook", "ls", "--json"])).stdout;
    expect(shown).toContain(receiver.host);
    expect(shown).not.toMatch(/the-token-in|whsec_/);
  });

  test.each([
    ["http://hooks.example/plain", /without encryption/],
    ["https://127.0.0.1/loopback", /no address on the public internet/],
    ["https://169.254.169.254/latest/meta-data", /no address on the public internet/],
    ["https://[::ffff:10.0.0.1]/mapped", /no address on the public internet/],
    ["https://2130706433/", /no address on the public internet/],
    ["https://localhost:8443/", /no address on the public internet/],
    ["https://user:password@hooks.example/", /user name/],
    ["file:///etc/passwd", /not a URL/],
    [`https://hooks.example/${"x".repeat(2048)}`, /2048 bytes/],
  ])("at %s is refused", async (url, message) => {
    expect(refusal(await cli(["alert", "webhook", "add", url]), ["password"])).toMatch(message);
  });
});

describe("a secret that its registry refuses", () => {
  test("is told of within seconds: signed, with what depends on it; and works again after an update", async () => {
    const had = receiver.received.length;
    await revoke();
    const { received, payload } = await next(had);
    expect(received.signed).toBe(true);
    expect(payload).toMatchObject({
      type: "secret.failing",
      data: {
        workspace: "default",
        secret: { name: secretName, version: 1 },
        registry: registry.host,
        state: "failing",
        code: "unauthorized",
        images: [{ reference }],
        images_total: 1,
        containers: [containerId],
      },
    });
    await node.waitFor(/"level":"warning".*a registry credential is failing/);
    await renew();
    const again = await next(had + 1);
    expect([again.received.signed, again.payload.type, again.payload.data["state"]]).toEqual([
      true,
      "secret.recovered",
      "ok",
    ]);
    expect(again.payload.data["secret"]).toMatchObject({ name: secretName, version: 2 });
    const told = await json<{ kind: string; message: string }[]>("alert", "ls");
    expect(told.map(({ kind }) => kind)).toEqual(["recovered", "failing"]);
    expect(await ok(["alert", "ls", "--limit", "1"])).toMatch(
      /^\d+ s ago {2}recovered\n {2}The secret \S+ .* works again\./,
    );
    expect(receiver.received).toHaveLength(had + 2);
  });

  test("is in Prometheus' metrics, for those who may see it", async () => {
    const context = await readFile(join(dir, "xdg/oci-node/context.json"), "utf8");
    const { url, token, admin_token: adminToken } = JSON.parse(context);
    const scrape = (bearer?: string) =>
      fetch(`${url}/metrics`, bearer === undefined ? {} : { headers: { authorization: `Bearer ${bearer}` } });
    for (const wrong of [undefined, "ocn_unknown"]) {
      const refused = await scrape(wrong);
      expect([refused.status, refused.headers.get("www-authenticate")]).toEqual([
        401,
        'Bearer realm="oci-node"',
      ]);
      expect(await refused.text()).not.toContain("oci_node_");
    }
    // What joins a cluster is a token with the authority's fingerprint behind it.
    const worker = (await ok(["token", "create", "--role", "worker"])).slice(0, "ocn_".length + 43);
    expect((await scrape(worker)).status).toBe(403);
    await ok(["workspace", "create", "other"]);
    const theirs = await ok(["token", "create", "--workspace", "other", "--role", "viewer"]);
    const families = async (bearer: string) => parseExposition(await (await scrape(bearer)).text());

    const own = await families(token);
    const labels = { workspace: "default", secret: secretName, registry: registry.host };
    expect(own.get("oci_node_secret_health")?.samples).toEqual([
      { labels: { ...labels, state: "ok" }, value: 1 },
    ]);
    const checked = own.get("oci_node_secret_last_check_timestamp_seconds")?.samples[0]?.value ?? 0;
    expect(Date.now() / 1000 - checked).toBeLessThan(600);
    const running = own.get("oci_node_containers")?.samples.find((one) => one.labels["state"] === "running");
    expect(running?.value).toBe(1);
    expect([own.has("oci_node_workers"), own.has("process_open_fds")]).toEqual([false, false]);

    expect((await families(theirs)).has("oci_node_secret_health")).toBe(false);
    const all = await families(adminToken);
    expect(all.get("oci_node_secret_health")?.samples).toHaveLength(1);
    expect(all.get("oci_node_workers")?.samples[0]).toEqual({ labels: { state: "ready" }, value: 1 });
    expect(new Set(all.get("oci_node_secrets")?.samples.map((one) => one.labels["workspace"]))).toEqual(
      new Set(["default", "other"]),
    );
  });
});

test("a secret that ends in two days is told of by the nearest threshold alone, and once", async () => {
  const had = receiver.received.length;
  const account = { env: credentialVariables(registry) };
  await ok(["secret", "update", secretName, "--expires", "2d", ...withCredentials], account);
  const { received, payload } = await next(had);
  expect([received.signed, payload.type, payload.data["state"]]).toEqual([
    true,
    "secret.expiring",
    "expiring",
  ]);
  const left = Date.parse(String(payload.data["expires_at"])) - Date.now();
  expect(left / 3_600_000).toBeGreaterThan(40);
  expect(String(payload.data["message"])).toMatch(
    /ends in (48 hours|2 days), at .*Renew it before: oci-node secret update/,
  );
  await ok(["secret", "health", secretName, "--check"]);
  await ok(["secret", "update", secretName, "--expires", "400d", ...withCredentials], account);
  expect((await json<{ kind: string }[]>("alert", "ls")).map(({ kind }) => kind)).toEqual([
    "expiring",
    "recovered",
    "failing",
  ]);
});

test("a node that is killed while it delivers delivers after its next start", async () => {
  const had = receiver.received.length;
  receiver.answer = () => new Promise(() => undefined);
  await revoke();
  await next(had);
  await endNode("SIGKILL");
  receiver.answer = () => new Response(null, { status: 204 });
  await startNode();
  const { received, payload } = await next(had + 1);
  expect([received.signed, payload.type]).toEqual([true, "secret.failing"]);
  expect(received.headers.get("webhook-id")).toBe(
    receiver.received[had]?.headers.get("webhook-id") as string,
  );
  expect(received.body).toBe(receiver.received[had]?.body as string);
  await renew();
  expect((await next(had + 2)).payload.type).toBe("secret.recovered");
  await node.waitFor(/a registry credential works again/);
});

test("a receiver that wants nothing more is told nothing more, and the list of webhooks says so", async () => {
  const had = receiver.received.length;
  receiver.answer = () => new Response(null, { status: 410 });
  await revoke();
  await next(had);
  await node.waitFor(/a webhook was disabled/);
  const [listed] = await json<Record<string, unknown>[]>("alert", "webhook", "ls");
  expect(listed).toMatchObject({
    pending: 0,
    givenUp: 1,
    lastError: expect.stringContaining("answered 410"),
  });
  expect(await ok(["alert", "webhook", "ls"])).toContain("disabled");
  await renew();
  await node.waitFor(/a registry credential works again/);
  await ok(["alert", "webhook", "rm", webhookId]);
  expect(refusal(await cli(["alert", "webhook", "rm", webhookId]))).toMatch(/no webhook/);
  expect(receiver.received).toHaveLength(had + 1);
});

test("neither an address nor what signs is in the log, nor in any file of the node, and it leaves nothing behind", async () => {
  await ok(["stop", containerId]);
  await endNode("SIGTERM");
  const secret = receiver.secrets.get(path) ?? "";
  const forms = [
    "the-token-in-the-address",
    secret,
    secret.slice(6),
    Buffer.from(path).toString("base64").slice(4, -4),
  ];
  expect(forms.filter((form) => logs.includes(form))).toEqual([]);
  const patterns = forms.flatMap((form) => ["-e", form]);
  // Only what the files hold of it: the database with its log of changes among them.
  const found = await tryRun(["grep", "-rlaF", ...patterns, dir], { timeoutMs: 60_000 });
  expect(found.stdout).toBe("");
  expect(await leftovers(dir)).toEqual([]);
}, 60_000);
