import { readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { limitOwnMemory } from "../native/points.ts";
import { childFailure } from "./child-failure.ts";
import type { ChildAnswer, ChildRequest } from "./child-protocol.ts";
import { openIndexing } from "./layer-index.ts";
import { checkOwnUse } from "./own-use.ts";

const readBytes = 1024 * 1024;

/**
 * The indexing process: reads one layer's bytes from standard input, writes `span` and `toc` into the directory of the
 * request, the blob to its place, and prints one line, a {@link ChildAnswer}. The request is the only argument, as JSON.
 *
 * @returns the exit code: 0, or 1 when the layer cannot be indexed
 */
export async function runIndexChild(argv: readonly string[]): Promise<number> {
  let answer: ChildAnswer;
  try {
    const request = JSON.parse(argv[0] ?? "") as ChildRequest;
    limitGrowth(request.limits.layerMemoryBytesMax);
    answer = indexStandardInput(request);
  } catch (error) {
    answer = { error: childFailure(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  return "error" in answer ? 1 : 0;
}

/** Reads on this thread: there is nothing else for it to do, and the pipe holds the writer back. */
function indexStandardInput({ layer, directory, blob, limits }: ChildRequest): ChildAnswer {
  const files = { spanPath: join(directory, "span"), tocPath: join(directory, "toc"), blob };
  const indexing = openIndexing(layer, files, limits);
  try {
    const buffer = Buffer.allocUnsafe(readBytes);
    for (;;) {
      const got = readSync(0, buffer, 0, buffer.length, null);
      if (got === 0) return { layer: indexing.finish(), blobProblem: indexing.blobProblem };
      indexing.push(buffer.subarray(0, got));
      checkOwnUse("layer", limits);
    }
  } finally {
    indexing.close();
  }
}

/**
 * The kernel's limit, for what C allocates and JavaScript maps anew. JavaScriptCore has gigabytes of address space mapped
 * from the start, which count: the limit is what is mapped now and the budget, so it does not bound the heap inside of
 * that space. {@link checkOwnUse} does.
 */
function limitGrowth(memoryBytes: number): void {
  const mapped = /^VmData:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1];
  if (mapped !== undefined) limitOwnMemory(Number(mapped) * 1024 + memoryBytes);
}

if (import.meta.main) process.exitCode = await runIndexChild(process.argv.slice(2));
