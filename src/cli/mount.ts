import { openSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { credentialsToWire } from "../credential/wire.ts";
import { LazyMounts } from "../mount/lazy-mount.ts";
import { formatReference, parseReference } from "../reference/reference.ts";
import { parseDuration } from "../std/duration.ts";
import { selfCommand } from "../std/self.ts";
import { parseSize } from "../std/size.ts";
import { cleanEnvironment, tryRun } from "../std/spawn.ts";
import { sleep } from "../std/wait.ts";
import { command, words } from "./action.ts";
import { CliError } from "./context.ts";
import { type CredentialFlags, credentialFlags, readCredentials, rereadableSource } from "./credentials.ts";
import { type ServeMountMessage, type ServeMountRequest, serveMount, serverLogPath } from "./mount-server.ts";
import { isMountPoint, isServing, mountPaths, readMountState } from "./mount-state.ts";
import { createProgress, note, type Progress, printJson, printLine } from "./output.ts";
import { cacheHome, limitsOf, registryAccess, type StandaloneFlags, standaloneFlags } from "./standalone.ts";

interface MountFlags extends CredentialFlags, StandaloneFlags {
  readonly json: boolean;
  readonly indexStore?: string;
  readonly cacheDir?: string;
  readonly foreground: boolean;
  readonly fetchAll: boolean;
  readonly readDeadline?: number;
  readonly backgroundBandwidth?: number;
  readonly indexOnly: boolean;
  readonly verifyCache: boolean;
  readonly mountTransport?: "auto" | "file" | "loop";
}

export const mount = command<MountFlags, [string, string]>({
  brief: "Mount an image at a folder, lazily, without any server",
  fullDescription:
    "Returns when the tree is there and serves in the background until `oci-node umount DIR`. An image that is not " +
    "indexed yet is read once, whole, to index it and to have it; of one that is indexed only what is read is fetched.",
  flags: {
    ...credentialFlags,
    ...standaloneFlags,
    indexStore: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Folder of the index store (default ~/.cache/oci-node/index)",
      placeholder: "DIR",
    },
    cacheDir: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Folder for what is fetched (default ~/.cache/oci-node/layers)",
      placeholder: "DIR",
    },
    foreground: { kind: "boolean", default: false, brief: "Serve in this process until Ctrl-C" },
    fetchAll: { kind: "boolean", default: false, brief: "Fetch the rest of the image in the background" },
    readDeadline: {
      kind: "parsed",
      parse: readPatience,
      optional: true,
      brief: "How long a read may wait for the registry before it fails (default 30s)",
      placeholder: "TIME",
    },
    backgroundBandwidth: {
      kind: "parsed",
      parse: parseBandwidth,
      optional: true,
      brief: "Bytes per second that --fetch-all may take at most, such as 20M",
      placeholder: "SIZE",
    },
    indexOnly: {
      kind: "boolean",
      default: false,
      brief: "Keep nothing of layers that have to be indexed: fetch what is read",
    },
    verifyCache: {
      kind: "boolean",
      default: false,
      brief: "Read and check what the cache holds before it is served",
    },
    mountTransport: {
      kind: "enum",
      values: ["auto", "file", "loop"],
      optional: true,
      brief: "file: EROFS over files (Linux 6.12 and later); loop: over loop devices",
    },
  },
  positional: words(
    { placeholder: "REF", brief: "Image reference" },
    { placeholder: "DIR", brief: "Folder" },
  ),
  async run(flags, text, directory) {
    const reference = parseReference(text);
    const credentials = await readCredentials(flags, reference);
    const source = rereadableSource(flags);
    const request: ServeMountRequest = {
      reference: formatReference(reference),
      directory: mountPaths(directory).directory,
      credentials: credentials === undefined ? {} : credentialsToWire(credentials),
      ...(source === undefined ? {} : { source }),
      access: registryAccess(flags),
      ...(flags.platform === undefined ? {} : { platform: flags.platform }),
      limits: limitsOf(flags),
      indexStore: resolve(flags.indexStore ?? join(cacheHome(), "index")),
      cacheDir: resolve(flags.cacheDir ?? join(cacheHome(), "layers")),
      transport: flags.mountTransport ?? "auto",
      ...(flags.readDeadline === undefined ? {} : { readDeadlineMs: flags.readDeadline }),
      verifyCache: flags.verifyCache,
      fetchAll: flags.fetchAll,
      ...(flags.backgroundBandwidth === undefined
        ? {}
        : { backgroundBytesPerSecond: flags.backgroundBandwidth }),
      indexOnly: flags.indexOnly,
    };
    const progress = createProgress(flags.json);
    const onReady = () => {
      progress.end();
      if (flags.json) printJson({ mounted: request.directory, reference: request.reference });
      else printLine(`${request.reference} mounted at ${request.directory}`);
    };
    if (flags.foreground)
      await serveMount(request, { onProgress: (update) => progress.update(update), onReady });
    else await serveInBackground(request, progress, onReady);
    return 0;
  },
});

function readPatience(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined || ms === 0 || ms > 24 * 3_600_000)
    throw new Error("must be a time such as 30s or 2m, up to 24h");
  return ms;
}

function parseBandwidth(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined || bytes === 0)
    throw new SyntaxError(`${JSON.stringify(text)} is not a size such as 20M`);
  return bytes;
}

/** Starts a process of its own that serves, and waits until it says that the tree is there. */
async function serveInBackground(
  request: ServeMountRequest,
  progress: Progress,
  onReady: () => void,
): Promise<void> {
  const logPath = serverLogPath(request.directory);
  await mkdir("/run/oci-node", { recursive: true, mode: 0o700 });
  const child = Bun.spawn(["setsid", ...selfCommand(), "internal", "serve-mount"], {
    env: { ...cleanEnvironment, HOME: process.env["HOME"] ?? "/root" },
    cwd: "/",
    stdin: "pipe",
    stdout: "pipe",
    stderr: openSync(logPath, "w", 0o600),
  });
  const interrupt = () => child.kill("SIGTERM");
  process.on("SIGINT", interrupt);
  child.stdin.write(JSON.stringify(request));
  child.stdin.end();
  try {
    for await (const message of messagesOf(child.stdout)) {
      if ("progress" in message) progress.update(message.progress);
      if ("error" in message) {
        const { message: text, next } = message.error;
        await rm(logPath, { force: true });
        throw new CliError("failed", text, { next: next ?? undefined });
      }
      if ("ready" in message) {
        child.unref();
        onReady();
        return;
      }
    }
    throw new CliError("failed", "the serving process ended before the image was mounted", {
      next: `See ${logPath}.`,
    });
  } finally {
    process.off("SIGINT", interrupt);
    progress.end();
  }
}

async function* messagesOf(output: ReadableStream<Uint8Array>): AsyncGenerator<ServeMountMessage> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of output) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      yield JSON.parse(text.slice(0, end)) as ServeMountMessage;
      text = text.slice(end + 1);
    }
  }
}

const umountTimeoutMs = 5_000;
const umountCheckMs = 25;

export const umount = command<{ json: boolean }, [string]>({
  brief: "Unmount an image that `mount` mounted",
  positional: words({ placeholder: "DIR", brief: "Folder" }),
  async run(flags, folder) {
    const paths = mountPaths(folder);
    const state = readMountState(paths);
    if (state === undefined) {
      throw new CliError("failed", `oci-node mounted nothing at ${paths.directory}`, {
        next: (await isMountPoint(paths.directory)) ? `Use: umount ${paths.directory}` : "Check the path.",
      });
    }
    if (isServing(state)) {
      process.kill(state.pid, "SIGTERM");
      const deadline = Date.now() + umountTimeoutMs;
      while (isServing(state) && Date.now() < deadline) await sleep(umountCheckMs);
      if (isServing(state)) {
        throw new CliError("failed", `${paths.directory} is in use; process ${state.pid} serves it on`, {
          next: `See who uses it: fuser -vm ${paths.directory}`,
        });
      }
    } else {
      note(`the serving process ${state.pid} had died: clearing what it left`);
      await clearDead(paths.directory);
    }
    await rm(serverLogPath(folder), { force: true });
    if (flags.json) printJson({ unmounted: paths.directory });
    else printLine(paths.directory);
    return 0;
  },
});

/** Unmounts what a serving process that crashed has left behind. */
async function clearDead(directory: string): Promise<void> {
  const paths = mountPaths(directory);
  if (await isMountPoint(paths.directory)) await tryRun(["umount", "--lazy", paths.directory]);
  const mounts = await LazyMounts.create({
    stateDir: paths.mounts,
    cacheDir: join(paths.base, "cache"),
    cacheQuotaBytes: undefined,
    transport: "auto",
  });
  try {
    await mounts.clearStale();
  } finally {
    await mounts.close();
  }
  await rm(paths.base, { recursive: true, force: true });
}
