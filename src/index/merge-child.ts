import { z } from "zod";
import { selfCommand } from "../std/self.ts";
import { cleanEnvironment } from "../std/spawn.ts";
import { IndexError, indexErrorCodes } from "./error.ts";
import { defaultIndexLimits, type IndexLimits } from "./limits.ts";
import type { MergedImage, MergeRequest } from "./merge-image.ts";

export interface MergeChildOptions {
  /** Starts a merging process. Default: this program, `internal merge-image`. */
  readonly command?: readonly string[];
  readonly limits?: IndexLimits;
}

const answerSchema = z.union([
  z.object({
    image: z.object({
      sizeBytes: z.number().int().nonnegative(),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
      inodes: z.number().int().nonnegative(),
      droppedXattrs: z.array(z.string()).readonly(),
    }),
  }),
  z.object({
    error: z.object({ code: z.enum(indexErrorCodes), message: z.string(), next: z.string().optional() }),
  }),
]);

/** The line that a merging process prints. */
export type MergeAnswer = z.infer<typeof answerSchema>;

/** What a merging process reads from its standard input, as JSON. */
export interface MergeOrder extends MergeRequest {
  readonly limits: IndexLimits;
}

/**
 * `mergeImage` in a process of its own, with a clean environment and a memory limit: an image of a million files keeps
 * no thread of ours busy. The process dies with this call.
 *
 * @throws IndexError as `mergeImage`, `child_failed` when the process died, `cancelled`
 */
export async function mergeImageInChild(
  request: MergeRequest,
  signal: AbortSignal,
  options: MergeChildOptions = {},
): Promise<MergedImage> {
  const cancelled = () =>
    new IndexError("cancelled", "merging the layers was cancelled", { cause: signal.reason });
  if (signal.aborted) throw cancelled();
  const order: MergeOrder = { ...request, limits: options.limits ?? defaultIndexLimits };
  const child = start(options.command ?? [...selfCommand(), "internal", "merge-image"], order);
  const kill = () => child.kill("SIGKILL");
  signal.addEventListener("abort", kill);
  try {
    const [stdout, stderr] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    if (signal.aborted) throw cancelled();
    return readAnswer(stdout, stderr, String(child.signalCode ?? `exit code ${child.exitCode}`));
  } finally {
    signal.removeEventListener("abort", kill);
    kill();
    await child.exited;
  }
}

function start(argv: readonly string[], order: MergeOrder): Bun.Subprocess<Blob, "pipe", "pipe"> {
  try {
    return Bun.spawn([...argv], {
      cwd: "/",
      env: { ...cleanEnvironment },
      stdin: new Blob([JSON.stringify(order)]),
      stdout: "pipe",
      stderr: "pipe",
    });
  } catch (cause) {
    throw new IndexError("child_failed", "the merging process could not be started", { cause });
  }
}

function readAnswer(stdout: string, stderr: string, how: string): MergedImage {
  const answer = answerSchema.safeParse(parseJson(stdout));
  if (answer.success && "image" in answer.data) return answer.data.image;
  if (answer.success && "error" in answer.data) {
    const { code, message, next } = answer.data.error;
    throw new IndexError(code, message, { next });
  }
  const tail = stderr.trim().slice(-500);
  throw new IndexError("child_failed", `the merging process died (${how})${tail === "" ? "" : `: ${tail}`}`, {
    next: "Try again; if it stays, the image may need more memory than merging is allowed.",
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
