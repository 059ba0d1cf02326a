import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";

/**
 * The command line that starts this program again, to which its arguments are added: the executable alone when it is a
 * compiled one, else bun and `src/main.ts`. It is this very executable, also when another has taken its place on the disk
 * since, or none: what a process starts must fit it (an upgrade replaces the file before it ends the process).
 */
export function selfCommand(): string[] {
  const compiled = import.meta.url.includes("/$bunfs/");
  return compiled
    ? [executable()]
    : [process.execPath, fileURLToPath(new URL("../main.ts", import.meta.url))];
}

/** Its path, while that leads to what runs; else the kernel's link to it (proc(5)), which the process keeps alive. */
function executable(): string {
  const link = `/proc/${process.pid}/exe`;
  const there = statSync(process.execPath, { throwIfNoEntry: false });
  const here = statSync(link);
  return there?.ino === here.ino && there.dev === here.dev ? process.execPath : link;
}
