import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { writeErofs } from "../index/erofs.ts";
import { LayerMerger } from "../index/merge.ts";
import { blockBytes } from "../index/types.ts";
import { FuseBlobServer } from "../native/fuse.ts";
import { messageOf } from "../std/error.ts";
import { unmountTree } from "./layered-mount.ts";
import { Transport, type TransportName } from "./transport.ts";

export interface TransportProbe {
  /** EROFS reads its files itself (kernel ≥ 6.12). */
  readonly file: boolean;
  /** EROFS reads them through loop devices (kernel ≥ 5.16). */
  readonly loop: boolean;
  /** Layers can be served before they are complete. */
  readonly fuse: boolean;
  /** What is served outlives the process that serves it (kernel ≥ 6.9). */
  readonly resend: boolean;
  /** The kernel's release, as `uname -r` shows it. */
  readonly kernel: string;
  /** Why what does not work does not; empty when all does. */
  readonly detail: readonly string[];
}

/** Finds out what this host can mount by mounting a tiny image in each way, in a folder of its own. Leaves nothing. */
export async function probeTransport(): Promise<TransportProbe> {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-probe-"));
  const detail: string[] = [];
  const attempt = async (what: string, work: () => Promise<void>): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (thrown) {
      detail.push(`${what}: ${messageOf(thrown)}`);
      return false;
    }
  };
  try {
    const image = await writeProbeImage(dir);
    const file = await attempt("EROFS from files", () => probeMount(dir, image, "file"));
    const loop = await attempt("EROFS from loop devices", () => probeMount(dir, image, "loop"));
    let resend = false;
    const fuse = await attempt("FUSE", async () => {
      resend = await probeFuse(dir);
    });
    return { file, loop, fuse, resend, kernel: release(), detail };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

interface ProbeImage {
  readonly erofsPath: string;
  readonly blobPath: string;
  readonly content: string;
}

/** An image of one file, whose bytes are in a blob beside it. */
async function writeProbeImage(dir: string): Promise<ProbeImage> {
  const content = "read through EROFS";
  const merger = new LayerMerger();
  merger.startLayer();
  merger.add({
    path: "probe",
    type: "file",
    mode: 0o444,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
    mtimeNanos: 0,
    size: content.length,
    blobOffset: 0,
  });
  merger.endLayer();
  const image = { erofsPath: join(dir, "erofs"), blobPath: join(dir, "blob"), content };
  await writeErofs(merger.tree, [{ blobSizeBytes: blockBytes }], image.erofsPath);
  await writeFile(image.blobPath, Buffer.alloc(blockBytes).fill(content, 0, content.length));
  return image;
}

async function probeMount(dir: string, image: ProbeImage, name: TransportName): Promise<void> {
  const root = join(dir, name);
  await mkdir(root);
  await new Transport(name).mount(image.erofsPath, [image.blobPath], root);
  try {
    const read = await readFile(join(root, "probe"), "utf8");
    if (read !== image.content) throw new Error("the mounted file does not hold what was written");
  } finally {
    await unmountTree(root, () => undefined);
  }
}

/** Whether this kernel asks a later server again. */
async function probeFuse(dir: string): Promise<boolean> {
  const mountpoint = join(dir, "fuse");
  await mkdir(mountpoint);
  const server = FuseBlobServer.mount({ mountpoint, blobs: [] });
  const { resends } = server;
  await server.unmount();
  return resends;
}
