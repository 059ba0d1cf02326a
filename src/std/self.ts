import { fileURLToPath } from "node:url";

/**
 * The command line that starts this program again, to which its arguments are added: the executable alone when it is a
 * compiled one, else bun and `src/main.ts`.
 */
export function selfCommand(): string[] {
  const compiled = import.meta.url.includes("/$bunfs/");
  return compiled
    ? [process.execPath]
    : [process.execPath, fileURLToPath(new URL("../main.ts", import.meta.url))];
}
