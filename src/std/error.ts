/**
 * The base of every room's error: what happened in the message, which case in `code`, what to do next in `next`.
 *
 * Each room exports one subclass with a union of its codes; `rpc/error.ts` and `mount/errno.ts` are the only places
 * that translate codes, both exhaustively. Messages are read by users and must never hold a credential.
 */
export abstract class CodedError<Code extends string = string> extends Error {
  /** Written out in each subclass: a minified build has no class names to take it from. */
  abstract override readonly name: string;
  readonly code: Code;
  /** One sentence in the imperative: what the reader can do about it. */
  readonly next: string | undefined;

  constructor(code: Code, message: string, options: { next?: string | undefined; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.next = options.next;
  }
}

/** The message of anything thrown, without a stack. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The errno name (`ENOENT`, `ECONNREFUSED`, …) of a platform error, if it has one. */
export function errnoOf(thrown: unknown): string | undefined {
  const code = (thrown as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : undefined;
}
