import { mkdtemp, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { logger } from "../std/log.ts";
import { selfCommand } from "../std/self.ts";
import { cleanEnvironment } from "../std/spawn.ts";
import { type ChildRequest, childAnswer } from "./child-protocol.ts";
import { IndexError } from "./error.ts";
import { cancelled, forEachChunk, type LayerIndexFiles, type LayerToIndex } from "./layer-index.ts";
import type { IndexLimits } from "./limits.ts";
import type { IndexedLayer } from "./types.ts";

export interface IndexChildOptions {
  /** Starts an indexing process, its request still to be added. Default: this program, `internal index-layer`. */
  readonly command?: readonly string[];
}

/**
 * `indexLayerStream` in a process of its own: a hostile layer can take neither our thread nor our memory. The process
 * has a clean environment and dies with this call; a failure leaves no file.
 *
 * @throws {IndexError} as `indexLayerStream`, and `child_failed` when the process died; and what `bytes` throws
 */
export async function indexLayerInChild(
  layer: LayerToIndex,
  bytes: AsyncIterable<Uint8Array>,
  out: LayerIndexFiles,
  limits: IndexLimits,
  signal: AbortSignal,
  options: IndexChildOptions = {},
): Promise<IndexedLayer> {
  if (signal.aborted) throw cancelled(signal);
  const directory = await mkdtemp(join(dirname(out.spanPath), ".index-layer-"));
  try {
    const request: ChildRequest = {
      layer: {
        digest: layer.digest,
        size: layer.size,
        mediaType: layer.mediaType,
        chunkTable: layer.chunkTable,
      },
      directory,
      blob: out.blob,
      limits,
    };
    const command = options.command ?? [...selfCommand(), "internal", "index-layer"];
    const indexed = await runChild([...command, JSON.stringify(request)], bytes, signal);
    await rename(join(directory, "span"), out.spanPath);
    await rename(join(directory, "toc"), out.tocPath);
    return indexed;
  } catch (error) {
    if (out.blob !== undefined) await rm(out.blob.path, { force: true });
    throw error;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function runChild(
  argv: string[],
  bytes: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<IndexedLayer> {
  const child = spawnChild(argv);
  try {
    const said = Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    await feed(child, bytes, signal);
    const [stdout, stderr] = await Promise.race([said, rejection(signal)]);
    return readAnswer(child, stdout, stderr);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

type Child = Bun.Subprocess<"pipe", "pipe", "pipe">;

function spawnChild(argv: string[]): Child {
  try {
    return Bun.spawn(argv, {
      cwd: "/",
      env: cleanEnvironment,
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
  } catch (cause) {
    throw new IndexError("child_failed", "the indexing process could not be started", { cause });
  }
}

/** Writes the layer to the process, no faster than it reads, until the end or until the process is gone. */
async function feed(child: Child, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
  const gone = new AbortController();
  void child.exited.then(() => gone.abort());
  try {
    await forEachChunk(bytes, AbortSignal.any([signal, gone.signal]), async (chunk) => {
      await Promise.all([child.stdin.write(chunk), child.stdin.flush()]);
    });
    await Promise.race([child.stdin.end(), child.exited]);
  } catch (error) {
    if (signal.aborted) throw cancelled(signal);
    // A process that has its answer early closes the pipe: then the answer counts, not the broken pipe.
    const pipeBroke = (error as { code?: unknown }).code === "EPIPE";
    if (!gone.signal.aborted && !pipeBroke) throw error;
  }
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(cancelled(signal));
    signal.addEventListener("abort", () => reject(cancelled(signal)), { once: true });
  });
}

function readAnswer(child: Child, stdout: string, stderr: string): IndexedLayer {
  const answer = childAnswer.safeParse(parseJson(stdout));
  if (answer.success && "layer" in answer.data) {
    const { layer, blobProblem } = answer.data;
    if (blobProblem !== undefined) {
      const fields = { layer: layer.digest, reason: blobProblem };
      logger("index").warning("the layer's contents were not kept while it was indexed", fields);
    }
    return layer;
  }
  if (answer.success && "error" in answer.data) {
    const { code, message, next } = answer.data.error;
    throw new IndexError(code, message, { next });
  }
  const how = child.signalCode === null ? `exit code ${child.exitCode}` : `signal ${child.signalCode}`;
  const tail = stderr.trim().slice(-500);
  throw new IndexError(
    "child_failed",
    `the indexing process died (${how})${tail === "" ? "" : `: ${tail}`}`,
    {
      next: "Try again; if it stays, the layer may need more memory than indexing is allowed.",
    },
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
