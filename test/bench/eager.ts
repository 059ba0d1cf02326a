import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { sweep } from "../kit/leftovers.ts";
import type { LocalImage } from "../kit/oci-layout.ts";
import { Program } from "../kit/program.ts";
import { withAuthFile } from "../kit/push.ts";
import { unpack } from "../kit/unpack.ts";
import { median } from "./figure.ts";
import { dropCaches, type Stage } from "./stage.ts";

/** How the other tools start a container of an image: by pulling all of it first. */
export type EagerWay = "skopeo" | "containerd";

/** Seconds since the beginning at which the image was unpacked, and at which its program had ended. */
export interface EagerSample {
  readonly unpacked: number;
  readonly ended: number;
}

const minutes = { timeoutMs: 600_000 };

/** The two eager ways, measured side by side; the faster one is what we are compared with. */
export class Eager {
  readonly samples: Record<EagerWay, EagerSample[]> = { skopeo: [], containerd: [] };
  readonly #stage: Stage;
  readonly #reference: string;
  readonly #command: readonly string[];

  constructor(stage: Stage, reference: string, command: readonly string[]) {
    this.#stage = stage;
    this.#reference = reference;
    this.#command = command;
  }

  /** One more sample of both ways, or of the one that was the faster so far when there is a sample of both. */
  async round(which: "both" | "faster" = "both"): Promise<void> {
    const known = this.samples.skopeo.length > 0 && this.samples.containerd.length > 0;
    const ways: EagerWay[] = which === "faster" && known ? [this.faster] : ["skopeo", "containerd"];
    for (const way of ways) {
      const pull = way === "skopeo" ? bySkopeo : byContainerd;
      this.samples[way].push(await pull(this.#stage, this.#reference, this.#command));
    }
  }

  get faster(): EagerWay {
    const of = (way: EagerWay): number => median(this.samples[way].map(({ ended }) => ended));
    return of("skopeo") < of("containerd") ? "skopeo" : "containerd";
  }

  /** Seconds of the faster way, until the program had ended or until the image was unpacked. */
  seconds(until: "ended" | "unpacked" = "ended"): number[] {
    return this.samples[this.faster].map((sample) => sample[until]);
  }
}

/** skopeo copies in parallel, umoci unpacks layer by layer, runc runs. */
async function bySkopeo(stage: Stage, reference: string, command: readonly string[]): Promise<EagerSample> {
  const dir = join(stage.dir, "skopeo");
  const [layout, bundle] = [join(dir, "layout"), join(dir, "bundle")];
  await mkdir(dir);
  try {
    return await withAuthFile(stage.link.host, stage.registry.account, async (authFile) => {
      const flags = ["--quiet", "--insecure-policy", "--src-tls-verify=false", "--src-authfile", authFile];
      await stage.chill();
      const started = performance.now();
      await run(["skopeo", "copy", ...flags, `docker://${reference}`, `oci:${layout}:latest`], minutes);
      await run(["umoci", "--log=error", "unpack", "--image", `${layout}:latest`, bundle], minutes);
      const unpacked = (performance.now() - started) / 1000;
      await runBundle(bundle, command);
      return { unpacked, ended: (performance.now() - started) / 1000 };
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Runs a command in a bundle that umoci made. */
export async function runBundle(bundle: string, command: readonly string[]): Promise<void> {
  const path = join(bundle, "config.json");
  const config = JSON.parse(await readFile(path, "utf8"));
  config.process.args = command;
  config.process.terminal = false;
  await writeFile(path, JSON.stringify(config));
  await run(["runc", "run", "--bundle", bundle, `oci-node-bench-${process.pid}`], minutes);
}

/**
 * Debian's containerd with an empty store of its own: pulls layers in parallel, unpacks onto overlayfs with igzip. This
 * containerd (1.6) looks for `unpigz` only, so igzip stands under that name in its PATH; later ones ask for igzip itself.
 */
async function byContainerd(
  stage: Stage,
  reference: string,
  command: readonly string[],
): Promise<EagerSample> {
  const dir = join(stage.dir, "containerd");
  const bin = join(dir, "bin");
  await mkdir(bin, { recursive: true });
  await symlink("/usr/bin/igzip", join(bin, "unpigz"));
  const socket = join(dir, "socket");
  const config = join(dir, "config.toml");
  // The CRI plugin and its network are for Kubernetes.
  await writeFile(
    config,
    `version = 2\nroot = "${dir}/root"\nstate = "${dir}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n` +
      `[grpc]\naddress = "${socket}"\n`,
  );
  const env = { PATH: `${bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin` };
  const daemon = new Program(["containerd", "--config", config], { env });
  try {
    await daemon.waitFor(/containerd successfully booted/);
    const ctr = ["ctr", "--address", socket];
    const { username, password } = stage.registry.account;
    const pull = [
      "images",
      "pull",
      "--plain-http",
      "--user",
      `${username}:${password}`,
      "--snapshotter",
      "overlayfs",
    ];
    await stage.chill();
    const started = performance.now();
    await run([...ctr, ...pull, reference], minutes);
    const unpacked = (performance.now() - started) / 1000;
    await run([...ctr, "run", "--rm", "--snapshotter", "overlayfs", reference, "bench", ...command], minutes);
    return { unpacked, ended: (performance.now() - started) / 1000 };
  } finally {
    await daemon.stop();
    await sweep(dir);
    await rm(dir, { recursive: true, force: true });
  }
}

/** The image unpacked on the local disk, with a bundle to run commands in: the best that a lazy start can come to. */
export class LocalTree {
  readonly bundle: string;

  private constructor(bundle: string) {
    this.bundle = bundle;
  }

  static async unpack(stage: Stage, image: LocalImage): Promise<LocalTree> {
    const bundle = join(stage.dir, "extracted");
    await unpack(image, bundle);
    return new LocalTree(bundle);
  }

  get root(): string {
    return join(this.bundle, "rootfs");
  }

  /** Seconds that a command takes with nothing of the tree in memory. */
  async coldSeconds(command: readonly string[]): Promise<number> {
    await dropCaches();
    const started = performance.now();
    await runBundle(this.bundle, command);
    return (performance.now() - started) / 1000;
  }
}
