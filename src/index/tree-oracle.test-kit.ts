import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { erofsMount } from "../native/linux.ts";
import { run } from "../std/spawn.ts";
import { writeErofs } from "./erofs.ts";
import { mergeLayers } from "./merge.ts";
import { indexTestLayer, type TestLayer, tarTestLayer } from "./tree-layers.test-kit.ts";

/** A folder, with what was mounted and attached for it, that goes away as a whole. */
export class Bench {
  readonly folder: string;
  readonly #undo: (() => Promise<unknown>)[] = [];

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async open(): Promise<Bench> {
    return new Bench(await mkdtemp(join(tmpdir(), "oci-node-tree-")));
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Merges and writes the layers, and mounts the image: the path of its root. */
  async mountLayers(layers: readonly TestLayer[], how: "files" | "loops" = "files"): Promise<string> {
    const indexed = layers.map(indexTestLayer);
    const image = this.path(`image-${this.#undo.length}.erofs`);
    const tree = mergeLayers(indexed.map(({ toc }) => toc));
    await writeErofs(
      tree,
      indexed.map(({ blob }) => ({ blobSizeBytes: blob.length })),
      image,
    );
    const blobs: string[] = [];
    for (const [at, { blob }] of indexed.entries()) {
      const path = `${image}.blob${at}`;
      await writeFile(path, blob);
      blobs.push(path);
    }
    return how === "files" ? await this.mount(image, blobs) : await this.mountWithLoops(image, blobs);
  }

  /** Mounts an image whose devices are these files: the kernel reads the files themselves. */
  async mount(image: string, blobs: readonly string[]): Promise<string> {
    const target = `${image}.mounted`;
    await mkdir(target);
    await erofsMount({ source: image, devices: blobs, target });
    this.#undo.push(() => run(["umount", target]));
    return target;
  }

  /** The same through loop devices, as kernels before 6.12 need it. */
  async mountWithLoops(image: string, blobs: readonly string[]): Promise<string> {
    const devices: string[] = [];
    for (const file of [image, ...blobs]) devices.push(await this.#attach(file));
    const target = `${image}.mounted`;
    await mkdir(target);
    await erofsMount({ source: devices[0] ?? "", devices: devices.slice(1), target });
    this.#undo.push(() => run(["umount", target]));
    return target;
  }

  /** Unpacks the layers one over the other with umoci: the path of the root. */
  async unpack(layers: readonly TestLayer[]): Promise<string> {
    const layout = this.path("layout");
    await mkdir(join(layout, "blobs/sha256"), { recursive: true });
    const put = async (mediaType: string, bytes: Uint8Array | string) => {
      const data = Buffer.from(bytes);
      const hex = new Bun.CryptoHasher("sha256").update(data).digest("hex");
      await writeFile(join(layout, "blobs/sha256", hex), data);
      return { mediaType, digest: `sha256:${hex}`, size: data.length };
    };
    const descriptors = [];
    for (const layer of layers) {
      descriptors.push(await put("application/vnd.oci.image.layer.v1.tar", tarTestLayer(layer)));
    }
    const config = {
      architecture: "amd64",
      os: "linux",
      config: {},
      rootfs: { type: "layers", diff_ids: descriptors.map(({ digest }) => digest) },
    };
    const manifest = await put(
      "application/vnd.oci.image.manifest.v1+json",
      JSON.stringify({
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: await put("application/vnd.oci.image.config.v1+json", JSON.stringify(config)),
        layers: descriptors,
      }),
    );
    const named = { ...manifest, annotations: { "org.opencontainers.image.ref.name": "test" } };
    await writeFile(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [named] }));
    await writeFile(join(layout, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
    const bundle = this.path("bundle");
    await run(["umoci", "unpack", "--image", `${layout}:test`, bundle]);
    return join(bundle, "rootfs");
  }

  /** Unmounts, detaches and removes everything. */
  async close(): Promise<void> {
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) await undo();
    await rm(this.folder, { recursive: true, force: true });
  }

  async #attach(file: string): Promise<string> {
    const device = (await run(["losetup", "--find", "--show", "--read-only", file])).stdout.trim();
    this.#undo.push(() => run(["losetup", "--detach", device]));
    return device;
  }
}
