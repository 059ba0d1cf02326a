import { childFailure } from "./child-failure.ts";
import type { MergeAnswer, MergeOrder } from "./merge-child.ts";
import { mergeImage } from "./merge-image.ts";
import { checkOwnUse } from "./own-use.ts";

/**
 * The merging process: reads a {@link MergeOrder} from standard input, writes the EROFS image, and prints one line, a
 * {@link MergeAnswer}.
 *
 * @returns the exit code: 0, or 1 when the layers cannot be merged
 */
export async function runMergeChild(): Promise<number> {
  let answer: MergeAnswer;
  try {
    const { limits, ...request } = JSON.parse(await Bun.stdin.text()) as MergeOrder;
    const never = new AbortController().signal;
    answer = { image: await mergeImage(request, never, limits, () => checkOwnUse("merge", limits)) };
  } catch (error) {
    answer = { error: childFailure(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  return "error" in answer ? 1 : 0;
}

if (import.meta.main) process.exitCode = await runMergeChild();
