import { readFile, stat } from "node:fs/promises";
import { DirectoryWatch } from "./output/directory-watch.ts";
import { isAlive, type ProcessIdentity } from "./process-identity.ts";

/** What a monitor wrote about the end of its container; `undefined` when it died without a word. */
export interface MonitorReport {
  readonly exitCode: number;
  readonly finishedAt: Date;
}

/** Waits for the exit files that monitors write. */
export class ExitWatch {
  readonly #directory: string;
  readonly #watch: DirectoryWatch;

  constructor(directory: string) {
    this.#directory = directory;
    this.#watch = new DirectoryWatch(directory);
  }

  /** Resolves when the exit file is there, or when the monitor has gone without writing it. */
  async wait(id: string, monitor: ProcessIdentity | undefined): Promise<MonitorReport | undefined> {
    let wake: () => void = () => undefined;
    let changed = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const unlisten = this.#watch.listen(id, () => wake());
    try {
      for (;;) {
        // In this order: a monitor writes before it ends.
        const monitored = monitor !== undefined && isAlive(monitor);
        const report = await this.read(id);
        if (report !== undefined || !monitored) return report;
        await changed;
        changed = new Promise((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      unlisten();
    }
  }

  async read(id: string): Promise<MonitorReport | undefined> {
    const path = `${this.#directory}/${id}`;
    try {
      const text = await readFile(path, "utf8");
      if (!/^-?\d+$/.test(text.trim())) return undefined;
      return { exitCode: Number(text), finishedAt: (await stat(path)).mtime };
    } catch {
      return undefined;
    }
  }

  close(): void {
    this.#watch.close();
  }
}
