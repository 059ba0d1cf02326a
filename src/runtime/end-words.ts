import { RuntimeError } from "./error.ts";
import type { ExitStatus } from "./spec.ts";

/** How a program ended, in few words. */
export function endOf({ exitCode, signal, oomKilled }: ExitStatus): string {
  if (oomKilled) return `exit code ${exitCode}, more memory than its limit`;
  return signal === undefined ? `exit code ${exitCode}` : `exit code ${exitCode}, ${signal}`;
}

/** What a shell exits with for a program that it could not start (POSIX, 2.8.2), where the program is what was wrong. */
export function neverRanCode(error: unknown): number | undefined {
  if (!(error instanceof RuntimeError)) return undefined;
  if (error.code === "command_not_found") return 127;
  return error.code === "permission" ? 126 : undefined;
}
