import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryRun } from "../../src/std/spawn.ts";
import type { CliResult } from "./node.ts";
import { TestNode } from "./node.ts";
import type { QuirkNet } from "./quirk-net.ts";
import { md5Of, type Row, rowImage } from "./quirk-row.ts";
import type { Container, Image } from "./world.ts";

/** A container that has read its first file and will read the second when it is asked to stop. */
export interface Reader {
  readonly image: Image;
  readonly id: string;
  readonly seed: number;
}

const configName = "config.toml";
/** On being asked to stop it reads the second file; where that fails, once more what it has read before. */
const program = `trap 'md5sum /data/two && exit 0; md5sum /data/one; exit 1' TERM
md5sum /data/one
sleep 1000 & wait`;

/** A node that takes the hosts of a {@link QuirkNet} for the Internet. Fetches nothing but what is read. */
export class QuirkWorld {
  readonly net: QuirkNet;
  readonly node: TestNode;
  readonly #dir: string;

  /** The node's configuration, which also commands without a node take. */
  readonly configFile: string;

  private constructor(net: QuirkNet, node: TestNode, dir: string) {
    this.net = net;
    this.node = node;
    this.#dir = dir;
    this.configFile = join(dir, configName);
  }

  /** Call it when every host has its routes. `hosts`: more settings of hosts; `more`: more of the file. */
  static async start(
    net: QuirkNet,
    options: { hosts?: Record<string, object>; insecure?: readonly string[]; more?: string } = {},
  ): Promise<QuirkWorld> {
    const dir = await mkdtemp(join(tmpdir(), "oci-node-quirks-"));
    const path = join(dir, configName);
    const hosts = { ...net.settings(), ...options.hosts };
    await writeFile(path, configuration(hosts, options.insecure ?? [], options.more ?? ""), { mode: 0o600 });
    try {
      return new QuirkWorld(net, await TestNode.start({ args: ["--config", path] }), dir);
    } catch (error) {
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  /** The first half of a container's life: built with the row's credential, started, one file read. */
  async read(row: Row, seed: number, reference = row.reference): Promise<Reader> {
    row.registry.add(repositoryOf(reference), "1", await rowImage(seed));
    return this.begin({ reference, env: row.env }, seed);
  }

  /** The same with an image that is there already. */
  async begin({ reference, env }: Pick<Row, "reference" | "env">, seed: number): Promise<Reader> {
    const flags = ["--index-only", ...keys({ env })];
    const image = await this.node.json<Image>(["image", "build", reference, ...flags], { env });
    const id = await this.node.ok(["run", "-d", image.id, "--", "sh", "-c", program]);
    const follow = this.node.start(["logs", "-f", id]);
    try {
      await follow.waitFor(new RegExp(md5Of("one", seed)));
    } finally {
      await follow.stop("SIGKILL");
    }
    return { image, id, seed };
  }

  /** The second half, whatever comes of it: the other file, which nobody has fetched yet; then the end. */
  async finish({ id }: Reader): Promise<{ readonly container: Container; readonly output: string }> {
    await this.node.ok(["stop", "--timeout", "30", id]);
    const output = await this.node.ok(["logs", id]);
    return { container: await this.node.json<Container>(["inspect", id]), output };
  }

  /** The second half, which must go well. */
  async readOn(reader: Reader): Promise<Container> {
    const { container, output } = await this.finish(reader);
    if (output.includes(md5Of("two", reader.seed))) return container;
    const told = [container.reason, ...container.events.map(({ message }) => message)].join("\n");
    throw new Error(`the container did not read on: ${output}\n${told}`);
  }

  /** A build as a user types it, whatever comes of it. */
  build(row: Pick<Row, "reference" | "env">): Promise<CliResult> {
    return this.node.cli(["image", "build", row.reference, "--index-only", ...keys(row)], {
      env: row.env,
      timeoutMs: 100_000,
    });
  }

  /** The files of the node, its database's included, that hold one of the texts. */
  async filesWith(texts: readonly string[]): Promise<string[]> {
    const patterns = join(this.#dir, "patterns");
    await writeFile(patterns, texts.join("\n"));
    const found = await tryRun(["grep", "-rlaF", "-f", patterns, this.node.home], { timeoutMs: 120_000 });
    if (found.exitCode > 1) throw new Error(`grep: ${found.stderr}`);
    return found.stdout.split("\n").filter((line) => line !== "");
  }

  async stop(): Promise<void> {
    try {
      await this.node.stop();
    } finally {
      await this.net.stop();
      await rm(this.#dir, { recursive: true, force: true });
    }
  }
}

function keys({ env }: Pick<Row, "env">): string[] {
  const names = Object.keys(env);
  return names.length === 0 ? [] : ["--creds", names.join(",")];
}

/** `acme/app` of `ghcr.io/acme/app:1`. */
export function repositoryOf(reference: string): string {
  return reference.replace(/^[^/]+\//, "").replace(/:[^:/]+$/, "");
}

function configuration(hosts: Record<string, object>, insecure: readonly string[], more: string): string {
  const sections = Object.entries(hosts).map(([name, settings]) => {
    const lines = Object.entries(settings).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
    return [`[registry.hosts.${JSON.stringify(name)}]`, ...lines].join("\n");
  });
  return [
    "[worker]",
    "background_fetch = false",
    "traces = false",
    "[registry]",
    `insecure = ${JSON.stringify(insecure)}`,
    ...sections,
    more,
    "",
  ].join("\n");
}
