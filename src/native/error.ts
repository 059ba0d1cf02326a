import { CodedError } from "../std/error.ts";

/**
 * A kernel or library call that failed. `code` is the errno's name (`ENOENT`, `EBUSY`, …), or one of
 * `BAD_SPAN_FILE`, `BAD_LIBRARY`, `RELEASED` for what has no errno.
 */
export class NativeError extends CodedError<string> {
  override readonly name = "NativeError";
}
