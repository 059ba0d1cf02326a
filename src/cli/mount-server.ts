import { mkdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { credentialsFromWire } from "../credential/wire.ts";
import type { IndexLimits } from "../index/limits.ts";
import type { OpenedImageIndex } from "../index/store.ts";
import { MountError } from "../mount/error.ts";
import { LayerIntake } from "../mount/layer-intake.ts";
import { LazyMounts } from "../mount/lazy-mount.ts";
import { preferThisThread } from "../native/process.ts";
import { parseReference } from "../reference/reference.ts";
import { blobSource, type Repository } from "../registry/repository.ts";
import { configureLog, logger } from "../std/log.ts";
import { sleep } from "../std/wait.ts";
import { CliError } from "./context.ts";
import { type RereadableSource, readAgain } from "./credentials.ts";
import { describeFailure } from "./failure.ts";
import { isMountPoint, mountPaths, writeMountState } from "./mount-state.ts";
import { indexInto, openRepository, type RegistryAccess } from "./standalone.ts";

/** What a serving process is told, on standard input: credentials never stand in arguments or the environment. */
export const serveMountSchema = z.object({
  reference: z.string(),
  directory: z.string(),
  credentials: z.record(z.string(), z.string()),
  source: z.custom<RereadableSource>().optional(),
  access: z.custom<RegistryAccess>(),
  platform: z.string().optional(),
  limits: z.custom<IndexLimits>(),
  indexStore: z.string(),
  cacheDir: z.string(),
  transport: z.enum(["auto", "file", "loop"]),
  readDeadlineMs: z.number().optional(),
  verifyCache: z.boolean(),
  fetchAll: z.boolean(),
  backgroundBytesPerSecond: z.number().positive().optional(),
  indexOnly: z.boolean(),
});

export type ServeMountRequest = z.infer<typeof serveMountSchema>;

/** What a serving process says, one JSON object per line of standard output. */
export type ServeMountMessage =
  | { readonly progress: { readonly label: string; readonly done: number; readonly total: number } }
  | { readonly ready: true }
  | { readonly error: { readonly code: string; readonly message: string; readonly next: string | null } };

const log = logger("mount");
const mountedCheckIntervalMs = 2_000;

/** The process that serves a mount in the background, told by standard input, until SIGTERM or an unmount. */
export async function serveMountFromStdin(): Promise<number> {
  await configureLog("info");
  const say = (message: ServeMountMessage) => process.stdout.write(`${JSON.stringify(message)}\n`);
  process.stdout.on("error", () => undefined);
  try {
    const request = serveMountSchema.parse(JSON.parse(await Bun.stdin.text()));
    await serveMount(request, {
      onProgress: (progress) => say({ progress }),
      onReady: () => say({ ready: true }),
    });
    return 0;
  } catch (thrown) {
    const { code, message, next } = describeFailure(thrown);
    say({ error: { code, message, next: next ?? null } });
    return 1;
  }
}

/** Mounts an image at a folder and serves it until a signal comes or the folder is unmounted; then nothing is left. */
export async function serveMount(
  request: ServeMountRequest,
  on: {
    readonly onProgress: (progress: { label: string; done: number; total: number }) => void;
    readonly onReady: () => void;
  },
): Promise<void> {
  preferThisThread();
  let leaving = new AbortController();
  const leave = () =>
    leaving.abort(new CliError("failed", "the mount was interrupted; nothing is left of it"));
  process.on("SIGTERM", leave);
  process.on("SIGINT", leave);
  const { signal } = leaving;
  const paths = mountPaths(request.directory);
  await assertFree(paths.directory);
  await mkdir(paths.base, { recursive: true, mode: 0o700 });
  const mounts = await LazyMounts.create({
    stateDir: paths.mounts,
    cacheDir: request.cacheDir,
    cacheQuotaBytes: undefined,
    backgroundBytesPerSecond: request.backgroundBytesPerSecond,
    verifyCache: request.verifyCache,
    transport: request.transport,
    limits: request.readDeadlineMs === undefined ? {} : { deadlineMs: request.readDeadlineMs },
  });
  try {
    await mounts.clearStale();
    const reference = parseReference(request.reference);
    const { source } = request;
    const reread = source === undefined ? undefined : () => readAgain(source, reference);
    const credentials = credentialsFromWire(request.credentials);
    const repository = openRepository(reference, credentials, request.access, reread);
    const image = await mounts.acquire({
      workspace: "mount",
      index: await openIndex(request, repository, on.onProgress, signal),
      source: blobSource(repository),
      background: request.fetchAll,
      eager: false,
      target: paths.directory,
      restrict: true,
      signal,
    });
    await writeMountState(paths, request.reference);
    on.onReady();
    for (;;) {
      await untilUnmounted(paths.directory, leaving.signal);
      leaving = new AbortController();
      try {
        await image.release();
        break;
      } catch (error) {
        if (!(error instanceof MountError) || error.code !== "busy") throw error;
        log.warn("the mount is in use: serving on", { directory: paths.directory, error: error.message });
      }
    }
  } finally {
    process.off("SIGTERM", leave);
    process.off("SIGINT", leave);
    await mounts.close();
    await rm(paths.base, { recursive: true, force: true });
  }
}

/** The image's index; layers that are not in the store are read once, and kept in the cache by that. */
async function openIndex(
  request: ServeMountRequest,
  repository: Repository,
  onProgress: (progress: { label: string; done: number; total: number }) => void,
  signal: AbortSignal,
): Promise<OpenedImageIndex> {
  const intake = request.indexOnly ? undefined : await LayerIntake.open(request.cacheDir, undefined);
  try {
    const { store, index, sha256 } = await indexInto(request.indexStore, repository, {
      platform: request.platform,
      limits: request.limits,
      keeper: intake,
      signal,
      onProgress: ({ digest, bytesDone, bytesTotal }) =>
        onProgress({ label: digest.slice(0, 19), done: bytesDone, total: bytesTotal }),
    });
    return await store.openImage(index.manifestDigest, sha256);
  } finally {
    await intake?.close();
  }
}

async function assertFree(directory: string): Promise<void> {
  const found = await stat(directory).catch(() => undefined);
  if (found === undefined || !found.isDirectory()) {
    throw new CliError("failed", `${directory} is not a folder`, {
      next: `Make it first: mkdir -p ${directory}`,
    });
  }
  if (await isMountPoint(directory)) {
    throw new CliError("failed", `something is mounted at ${directory} already`, {
      next: `Choose another folder, or: oci-node umount ${directory}`,
    });
  }
}

/** A signal ends the service; so does somebody's umount(8) of the folder. */
async function untilUnmounted(directory: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && (await isMountPoint(directory))) {
    await sleep(mountedCheckIntervalMs, signal).catch(() => undefined);
  }
}

/** Where the log of a serving process goes. */
export function serverLogPath(directory: string): string {
  return join("/run/oci-node", `${mountPaths(directory).base.split("/").at(-1)}.log`);
}
