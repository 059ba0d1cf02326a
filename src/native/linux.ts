/** Linux calls for mounts and loop devices. None of them blocks the JavaScript thread: each runs on a thread of its own. */
import { checked, errnoName, runJob } from "./doorbell.ts";
import { NativeError } from "./error.ts";
import { cText, loadShim } from "./shim.ts";

const { symbols } = loadShim({
  oci_mount: { args: ["buffer", "buffer", "u64", "u32", "buffer", "buffer", "u32"], returns: "i32" },
  oci_umount: { args: ["buffer", "u32", "u32"], returns: "i32" },
  oci_fuse_abort: { args: ["u32", "u32"], returns: "i32" },
  oci_loop_attach: { args: ["buffer", "bool", "bool", "u32", "u32"], returns: "i32" },
  oci_shutdown: { args: ["buffer", "u32"], returns: "i32" },
  oci_loop_detach: { args: ["buffer", "u32"], returns: "i32" },
  oci_read_inside: { args: ["buffer", "buffer", "buffer", "u32", "u32"], returns: "i32" },
});

/** <linux/mount.h>. */
const mountAttribute = { readOnly: 0x1, noSuid: 0x2, noDev: 0x4, noExec: 0x8, noAtime: 0x10 } as const;
/** <sys/mount.h>. */
const umountFlag = { force: 1, detach: 2, noFollow: 8 } as const;

/** A parameter of a file system: a path, a string, or a flag without a value. */
type Parameter = readonly ["path" | "string", key: string, value: string] | readonly ["flag", key: string];

function packParameters(parameters: readonly Parameter[]): Buffer {
  const parts: Buffer[] = [];
  for (const [type, key, value] of parameters) {
    parts.push(Buffer.from(type[0]!), cText(key));
    if (value !== undefined) parts.push(cText(value));
  }
  return Buffer.concat([...parts, Buffer.alloc(1)]);
}

/** fsopen, fsconfig, fsmount, move_mount (fsopen(2)): values may hold commas, and there may be hundreds of them. */
async function mountNew(
  type: string,
  parameters: readonly Parameter[],
  attributes: number,
  target: string,
): Promise<void> {
  const packed = packParameters(parameters);
  const text = Buffer.alloc(512);
  const result = await runJob(
    (job) => symbols.oci_mount(cText(type), packed, packed.length - 1, attributes, cText(target), text, job),
    packed,
    text,
  );
  if (result >= 0) return;
  const said = text.toString("utf8", 0, text.indexOf(0)).trim().replaceAll("\n", "; ");
  const code = errnoName(result);
  throw new NativeError(code, `${type} could not be mounted on ${target}: ${code}${said && ` (${said})`}`);
}

export interface ErofsMount {
  /** The metadata image: a file on a local disk (kernel ≥ 6.12), or a loop device. */
  readonly source: string;
  /**
   * The blobs, in the order of the image's device table. The kernel checks neither identity nor size: a wrong order
   * mounts and returns wrong bytes, so the caller checks both before.
   */
  readonly devices: readonly string[];
  readonly target: string;
  /** Mount options without value, for instance `directio`. */
  readonly flags?: readonly string[];
}

/** Mounts an EROFS image read-only. Throws {@link NativeError} with the errno and what the kernel said. */
export function erofsMount(mount: ErofsMount): Promise<void> {
  return mountNew(
    "erofs",
    [
      ["path", "source", mount.source],
      ["flag", "ro"],
      ...mount.devices.map((device) => ["path", "device", device] as const),
      ...(mount.flags ?? []).map((flag) => ["flag", flag] as const),
    ],
    mountAttribute.readOnly | mountAttribute.noDev | mountAttribute.noAtime,
    mount.target,
  );
}

/** Mounts a file system in memory, which never goes to swap where the kernel can promise that (≥ 6.4). */
export async function tmpfsMount(
  target: string,
  { sizeBytes, mode }: { readonly sizeBytes: number; readonly mode: number },
): Promise<void> {
  const attributes = mountAttribute.noSuid | mountAttribute.noDev | mountAttribute.noExec;
  const parameters: Parameter[] = [
    ["string", "source", "tmpfs"],
    ["string", "size", String(sizeBytes)],
    ["string", "mode", mode.toString(8)],
  ];
  try {
    await mountNew("tmpfs", [...parameters, ["flag", "noswap"]], attributes, target);
  } catch (error) {
    if (!(error instanceof NativeError) || error.code !== "EINVAL") throw error;
    await mountNew("tmpfs", parameters, attributes, target);
  }
}

export interface OverlayMount {
  /** Topmost first. */
  readonly lower: readonly string[];
  readonly upper: string;
  readonly work: string;
  readonly target: string;
  /** Further options: a value, or true for one without. */
  readonly options?: Readonly<Record<string, string | true>>;
}

/** Mounts an overlay. Paths may hold commas and colons on kernels ≥ 6.8 (`lowerdir+`). */
export function overlayMount(mount: OverlayMount): Promise<void> {
  const plain = mount.lower.length === 1 && !/[:,\\]/.test(mount.lower[0]!);
  const options = Object.entries(mount.options ?? {}).map(
    ([key, value]): Parameter => (value === true ? ["flag", key] : ["string", key, value]),
  );
  return mountNew(
    "overlay",
    [
      ["string", "source", "overlay"],
      ...mount.lower.map((path) => ["path", plain ? "lowerdir" : "lowerdir+", path] as const),
      ["path", "upperdir", mount.upper],
      ["path", "workdir", mount.work],
      ...options,
    ],
    0,
    mount.target,
  );
}

/**
 * umount2(2), not following symbolic links. `detach` takes the mount out of sight at once; neither it nor `force`
 * helps when a read is in flight below (see `FuseBlobServer.drain`).
 */
export async function umount(
  target: string,
  how: { readonly detach?: boolean; readonly force?: boolean } = {},
): Promise<void> {
  const flags =
    umountFlag.noFollow | (how.detach ? umountFlag.detach : 0) | (how.force ? umountFlag.force : 0);
  checked(
    await runJob((job) => symbols.oci_umount(cText(target), flags, job)),
    `${target} could not be unmounted`,
  );
}

/** Cuts a FUSE connection by its number; mounts fusectl when it is missing. A connection that is gone is fine. */
export async function fuseAbort(minor: number): Promise<void> {
  const result = await runJob((job) => symbols.oci_fuse_abort(minor, job));
  if (result < 0 && errnoName(result) !== "ENOENT")
    checked(result, `FUSE connection ${minor} could not be cut`);
}

/**
 * Mounts the ext4 in a file, over a loop device, to be thrown away with all that is in it: nothing is written for its sake alone.
 */
export async function scratchMount(file: string, target: string): Promise<void> {
  const { device } = await loopAttach(file, { directIo: true, readOnly: false });
  try {
    const options = ["noinit_itable", "nobarrier", "nodiscard"];
    await mountNew(
      "ext4",
      [["string", "source", device], ...options.map((option) => ["flag", option] as const)],
      mountAttribute.noDev,
      target,
    );
  } finally {
    // In use, it goes away by itself when the file system does.
    await loopDetach(device);
  }
}

/** Has a file system (ext4, xfs) forget what it has not written yet. It cannot be used any more but to be unmounted. */
export async function shutdownFileSystem(path: string): Promise<void> {
  checked(
    await runJob((job) => symbols.oci_shutdown(cText(path), job)),
    `the file system at ${path} could not be shut down`,
  );
}

export interface LoopOptions {
  readonly directIo: boolean;
  readonly readOnly: boolean;
  /** The device's read-ahead; the kernel's default of several MiB reads far too much. Default 1024. */
  readonly readAheadKb?: number;
}

/**
 * Attaches a file to a free loop device. Detach it right after the mount: a device in use then goes away by itself
 * when the file system on it is unmounted.
 */
export async function loopAttach(file: string, options: LoopOptions): Promise<{ device: string }> {
  const number = await runJob((job) =>
    symbols.oci_loop_attach(
      cText(file),
      options.directIo,
      options.readOnly,
      options.readAheadKb ?? 1024,
      job,
    ),
  );
  return { device: `/dev/loop${checked(number, `${file} could not be attached to a loop device`)}` };
}

export async function loopDetach(device: string): Promise<void> {
  checked(
    await runJob((job) => symbols.oci_loop_detach(cText(device), job)),
    `${device} could not be detached`,
  );
}

/**
 * The bytes of a regular file as a process with `root` as its root directory finds it: links and `..` stay inside. Waits
 * without harm for a lazy mount of this very process: see native/src/inside.c. Throws `EISDIR` for what is no regular
 * file, `EFBIG` for more than `sizeMax` bytes, `ENOENT`, `ENOTDIR`, `ELOOP`.
 */
export async function readInside(root: string, path: string, sizeMax: number): Promise<Buffer> {
  const out = Buffer.alloc(sizeMax);
  const length = await runJob(
    (job) => symbols.oci_read_inside(cText(root), cText(path), out, sizeMax, job),
    out,
  );
  return out.subarray(0, checked(length, `${path} below ${root} could not be read`));
}
