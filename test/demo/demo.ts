/**
 * `npm run demo`: the main job on real parts, a line per step. It compiles the executable and uses that, so what is shown
 * is what is shipped. Ends by itself and leaves nothing behind; exit code 1 when a step failed.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildBinary } from "../../native/binary.ts";
import type { containerShape, imageShape, secretShape } from "../../src/cli/shape.ts";
import { TestNode } from "../kit/node.ts";
import { push } from "../kit/push.ts";
import { pythonImage } from "../kit/python-image.ts";
import { TestRegistry } from "../kit/registry.ts";
import { type DemoOptions, parseOptions, usage } from "./options.ts";
import { megabytes, Steps } from "./steps.ts";

type Container = ReturnType<typeof containerShape>;
type Image = ReturnType<typeof imageShape>;
type Secret = ReturnType<typeof secretShape>;

/** A foreign image may hold a server; it is stopped when it ran this long. */
const foreignRunMs = 20_000;

const steps = new Steps();
/** What has to be ended, the last started first. */
const endings: (() => Promise<void>)[] = [];

/** What is built and run: an image in some registry, and how to come at it. */
interface Subject {
  readonly reference: string;
  readonly insecureRegistries: readonly string[];
  readonly credentialFlags: readonly string[];
  readonly env: Record<string, string>;
}

async function main(argv: readonly string[]): Promise<number> {
  let options: DemoOptions;
  try {
    options = parseOptions(argv);
  } catch (error) {
    process.stderr.write(`demo: ${(error as Error).message}\n${usage}`);
    return 2;
  }
  const started = performance.now();
  const interrupted = new Promise<never>((_, reject) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const)
      process.once(signal, () => reject(new Error(`ended by ${signal}`)));
  });
  let failed: unknown;
  try {
    await Promise.race([demonstrate(options), interrupted]);
  } catch (error) {
    failed = error;
  }
  for (const end of endings.reverse()) await end().catch((error) => (failed ??= error));
  if (failed !== undefined) {
    process.stderr.write(`demo: ${failed instanceof Error ? failed.message : String(failed)}\n`);
    return 1;
  }
  process.stdout.write(`Done in ${((performance.now() - started) / 1000).toFixed(1)} s.\n`);
  return 0;
}

async function demonstrate(options: DemoOptions): Promise<void> {
  const binary = await steps.step("compile the executable", buildBinary, (path) => `compiled ${path}`);
  const subject = options.image === undefined ? await ownSubject() : foreignSubject(options, options.image);
  const node = await startNode(binary, subject);
  const image = await build(node, subject);
  await showSecrets(node, image);
  const first = await runOnce(node, image, options, "first start");
  tellStart(first, image);
  const second = await runOnce(node, image, options, "second start");
  tellStart(second, image);
  await steps.step(
    "end",
    () => end(),
    () =>
      `ended the node${options.image === undefined ? " and the registry" : ""}; no mount, process or container is left`,
  );
}

/** An image made on this machine from Debian packages, in a private registry on this machine. */
async function ownSubject(): Promise<Subject> {
  const image = await steps.step(
    "make an image from Debian packages",
    () => pythonImage((text) => steps.detail(`… ${text}`)),
    (made) =>
      `made an image with Python, numpy and pandas: ${made.layers.length} gzip layers, ${megabytes(made.sizeBytes)}`,
  );
  const registry = await steps.step(
    "start a private registry",
    () => TestRegistry.start({ auth: "htpasswd" }),
    ({ host }) => `started a password-protected docker-registry on ${host}`,
  );
  endings.push(() => registry.stop());
  const reference = await steps.step(
    "push the image",
    () => push(image, registry, "demo/python:1"),
    (pushed) => `pushed ${pushed}`,
  );
  return {
    reference,
    insecureRegistries: registry.insecureHosts,
    credentialFlags: ["--creds", "USERNAME,PASSWORD"],
    env: { USERNAME: registry.account.username, PASSWORD: registry.account.password },
  };
}

function foreignSubject(options: DemoOptions, reference: string): Subject {
  const given = options.variables.map((name): [string, string | undefined] => [name, process.env[name]]);
  const env = Object.fromEntries(given.filter((pair): pair is [string, string] => pair[1] !== undefined));
  return {
    reference,
    insecureRegistries: options.insecureRegistries,
    credentialFlags: options.credentialFlags,
    env,
  };
}

/** A node that fetches what is read and nothing else, so that it can be seen what that is. */
async function startNode(binary: string, subject: Subject): Promise<TestNode> {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-demo-"));
  endings.push(() => rm(dir, { recursive: true }));
  const config = join(dir, "config.toml");
  await writeFile(config, "[worker]\nbackground_fetch = false\n", { mode: 0o600 });
  const node = await steps.step(
    "start a node with every role",
    () =>
      TestNode.start({
        command: [binary],
        insecureRegistries: subject.insecureRegistries,
        args: ["--config", config],
      }),
    ({ url }) => `started one node with every role: ${url} (database included; background_fetch = false)`,
  );
  endings.push(() => node.stop());
  return node;
}

/** Keeps nothing but the index, so that what follows is a start on a node that has none of the image's bytes. */
async function build(node: TestNode, { reference, credentialFlags, env }: Subject): Promise<Image> {
  const flags = credentialFlags.join(" ");
  return steps.step(
    `image build --index-only ${reference} ${flags}`,
    () =>
      node.json<Image>(["image", "build", "--index-only", reference, ...credentialFlags], {
        env,
        timeoutMs: 1_800_000,
      }),
    (image) =>
      `image build --index-only ${reference} ${flags} → ${image.id}: access proved, ${image.layers} layers indexed, ${image.inodes} inodes`,
  );
}

async function showSecrets(node: TestNode, image: Image): Promise<void> {
  await steps.step(
    "secret ls",
    () => node.json<Secret[]>(["secret", "ls"]),
    (secrets) => {
      const secret = secrets.find(({ name }) => name === image.secretName);
      if (secret === undefined) return "no secret: the image is public";
      return `secret ${secret.name}: ${secret.type} credential of ${secret.principal} for ${secret.registry}, version ${secret.version}, sealed at rest`;
    },
  );
}

/** Runs the image in the foreground and shows what it printed. */
async function runOnce(node: TestNode, image: Image, options: DemoOptions, what: string): Promise<Container> {
  const command = options.command.length === 0 ? [] : ["--", ...options.command];
  const own = options.image === undefined;
  const result = await steps.step(
    `${what}: run ${image.id}`,
    async () => {
      const id = await node.ok(["run", "-d", image.id, ...command]);
      const stopping = own ? undefined : setTimeout(() => void node.cli(["stop", id]), foreignRunMs);
      const output = await node.cli(["logs", "-f", id], { timeoutMs: 600_000 });
      clearTimeout(stopping);
      return { output, container: await ended(node, id) };
    },
    ({ container }) =>
      `${what}: container ${container.id} ${container.state} with exit code ${container.exitCode}`,
  );
  const shown = `${result.output.stdout}${result.output.stderr}`.trimEnd().split("\n").slice(-20);
  for (const text of shown) steps.detail(`│ ${text}`);
  if (result.container.state === "failed" || (own && result.container.exitCode !== 0)) {
    throw new Error(
      `container ${result.container.id}: ${result.container.reason ?? `exit code ${result.container.exitCode}`}`,
    );
  }
  return result.container;
}

async function ended(node: TestNode, id: string): Promise<Container> {
  for (;;) {
    const container = await node.json<Container>(["inspect", id]);
    if (["exited", "failed", "stopped"].includes(container.state)) return container;
    await Bun.sleep(50);
  }
}

/** What happened inside of a start, from the container's own record. */
function tellStart(container: Container, image: Image): void {
  const begin = Date.parse(container.createdAt ?? "");
  const phases = container.phases
    .filter(({ at }) => at !== null)
    .sort((a, b) => Date.parse(a.at ?? "") - Date.parse(b.at ?? ""))
    .map(({ name, at }) => `${name} ${Math.max(0, Date.parse(at ?? "") - begin)} ms`);
  steps.detail(phases.join(" → "));
  for (const event of container.events) if (event.kind === "credential") steps.detail(event.message);
  const { transfer } = container;
  if (transfer === null) return;
  const share = ((100 * transfer.fetchedBytes) / image.sizeBytes).toFixed(0);
  const requests = transfer.requests === 1 ? "1 request" : `${transfer.requests} requests`;
  steps.detail(
    `fetched ${megabytes(transfer.fetchedBytes)} of ${megabytes(image.sizeBytes)} (${share} %) in ${requests}`,
  );
}

async function end(): Promise<void> {
  for (let ending = endings.pop(); ending !== undefined; ending = endings.pop()) await ending();
}

process.exit(await main(process.argv.slice(2)));
