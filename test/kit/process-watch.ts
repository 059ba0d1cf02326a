import { readdirSync, readFileSync } from "node:fs";
import type { Canaries, Hit } from "./canary.ts";

/**
 * Looks at processes again and again: at the arguments of all there are, and at the environment of ours, which are the roots,
 * their descendants, and whatever names one of the folders (monitors and containers have other parents).
 */
export class ProcessWatch {
  readonly hits: Hit[] = [];
  /** Names of programs whose environment was looked at. */
  readonly seen = new Set<string>();
  looks = 0;
  readonly #canaries: Canaries;
  readonly #folder: string;
  readonly #roots = new Set<number>();
  readonly #known = new Set<string>();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(canaries: Canaries, folder: string, intervalMs = 40) {
    this.#canaries = canaries;
    this.#folder = folder;
    this.#timer = setInterval(() => this.look(), intervalMs);
  }

  /** One of our own processes; those that it starts are ours, too. */
  root(pid: number): void {
    this.#roots.add(pid);
  }

  look(): void {
    this.looks += 1;
    const processes = readdirSync("/proc").flatMap((name) => readProcess(name));
    const parents = new Map(processes.map(({ pid, parent }) => [pid, parent]));
    for (const each of processes) {
      const isOurs = this.#isOurs(each, parents);
      const key = `${each.pid} ${each.startedAt} ${isOurs} ${each.argv}`;
      if (each.pid === process.pid || this.#known.has(key)) continue;
      this.#known.add(key);
      const place = `process ${each.argv.replaceAll("\0", " ").slice(0, 120)}`;
      this.hits.push(...this.#canaries.inText(`arguments of ${place}`, each.argv));
      if (!isOurs) continue;
      const environment = read(`/proc/${each.pid}/environ`);
      this.seen.add((each.argv.split("\0")[0] ?? "").split("/").at(-1) ?? "");
      this.hits.push(...this.#canaries.inText(`environment of ${place}`, environment));
    }
  }

  stop(): void {
    clearInterval(this.#timer);
    this.look();
  }

  #isOurs({ pid, parent, argv }: Process, parents: ReadonlyMap<number, number>): boolean {
    // A command that was started here has what its caller gave it; what it starts in turn is ours.
    const isCommand = parent === process.pid && !this.#roots.has(pid);
    if (!isCommand && argv.includes(this.#folder)) return true;
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = parents.get(at)) {
      if (this.#roots.has(at)) return true;
      if (at !== pid && parents.get(at) === process.pid) return true;
    }
    return false;
  }
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly startedAt: string;
  readonly argv: string;
}

function readProcess(name: string): Process[] {
  if (!/^\d+$/.test(name)) return [];
  const status = read(`/proc/${name}/stat`);
  // The name in parentheses may hold anything.
  const fields = status.slice(status.lastIndexOf(")") + 2).split(" ");
  const argv = read(`/proc/${name}/cmdline`);
  if (argv === "") return [];
  return [{ pid: Number(name), parent: Number(fields[1]), startedAt: fields[19] ?? "", argv }];
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // It ended meanwhile.
    return "";
  }
}
