import type { ExitStatus } from "./spec.ts";

/** How a program ended, in few words. */
export function endOf({ exitCode, signal, oomKilled }: ExitStatus): string {
  if (oomKilled) return `exit code ${exitCode}, more memory than its limit`;
  return signal === undefined ? `exit code ${exitCode}` : `exit code ${exitCode}, ${signal}`;
}
