import { messageOf } from "../std/error.ts";
import { IndexError, type IndexErrorCode } from "./error.ts";

/** What a child process of the index room says of its failure on its line of standard output. */
export interface ChildFailure {
  readonly code: IndexErrorCode;
  readonly message: string;
  readonly next?: string;
}

/** An {@link IndexError} as it is; anything else means that the child itself failed. */
export function childFailure(error: unknown): ChildFailure {
  if (!(error instanceof IndexError)) return { code: "child_failed", message: messageOf(error) };
  const { code, message, next } = error;
  return { code, message, ...(next === undefined ? {} : { next }) };
}
