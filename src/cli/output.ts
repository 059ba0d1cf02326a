import { printable, printableJson } from "../std/printable.ts";
import { formatSize } from "../std/size.ts";

/** A digest, a reference with one, a role's ARN: longer ones are cut. */
const cellLengthMax = 400;
const noteLengthMax = 4000;

/** Prints a value as JSON on standard output: what every `--json` gives. */
export function printJson(value: unknown): void {
  process.stdout.write(`${printableJson(value, 2)}\n`);
}

export function printLine(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** A note for the person at the terminal: standard error, so that output stays what was asked for. */
export function note(text: string): void {
  // A reason may have words of an image, of a program or of a registry in it.
  const lines = text.split("\n").map((line) => printable(line, noteLengthMax));
  process.stderr.write(`${lines.join("\n")}\n`);
}

/** Columns aligned by their widest cell, two spaces between. */
export function printTable(header: readonly string[], given: readonly (readonly string[])[]): void {
  // A name from elsewhere must neither fill nor steer the terminal; `--json` has it as it is.
  const rows = given.map((row) => row.map((cell) => printable(cell, cellLengthMax)));
  const widths = header.map((cell, column) =>
    Math.max(cell.length, ...rows.map((row) => (row[column] ?? "").length)),
  );
  for (const row of [header, ...rows]) {
    printLine(
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    );
  }
}

/** `3 s`, `5 min`, `2 h`, `4 d` since a time. */
export function ago(at: Date | undefined, now = Date.now()): string {
  if (at === undefined) return "";
  const seconds = Math.max(0, Math.round((now - at.getTime()) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

export interface ProgressUpdate {
  /** What moves; updates of one label replace each other. */
  readonly label: string;
  readonly done: number;
  readonly total: number;
}

/** Shows how far a long piece of work is. */
export interface Progress {
  step(text: string): void;
  update(update: ProgressUpdate): void;
  end(): void;
}

/** Bars that are redrawn on a terminal; plain lines, one per step and finished piece, elsewhere. On standard error. */
export function createProgress(quiet: boolean, terminal = process.stderr.isTTY === true): Progress {
  if (quiet) return { step: () => {}, update: () => {}, end: () => {} };
  return terminal ? new BarProgress() : new LineProgress();
}

class LineProgress implements Progress {
  readonly #finished = new Set<string>();

  step(text: string): void {
    note(text);
  }

  update({ label, done, total }: ProgressUpdate): void {
    if (total === 0 || done < total || this.#finished.has(label)) return;
    this.#finished.add(label);
    note(`${label}: ${formatSize(total)}`);
  }

  end(): void {}
}

const barCells = 28;
const redrawIntervalMs = 80;

class BarProgress implements Progress {
  readonly #bars = new Map<string, ProgressUpdate>();
  #drawnLines = 0;
  #drawnAt = 0;

  step(text: string): void {
    this.#erase();
    note(text);
    this.#draw();
  }

  update(update: ProgressUpdate): void {
    this.#bars.set(update.label, update);
    const now = performance.now();
    if (now - this.#drawnAt < redrawIntervalMs && update.done < update.total) return;
    this.#drawnAt = now;
    this.#erase();
    this.#draw();
  }

  end(): void {
    this.#erase();
    this.#draw();
    this.#bars.clear();
    this.#drawnLines = 0;
  }

  #erase(): void {
    if (this.#drawnLines > 0) process.stderr.write(`\x1b[${this.#drawnLines}A\x1b[J`);
    this.#drawnLines = 0;
  }

  #draw(): void {
    for (const { label, done, total } of this.#bars.values()) {
      const share = total === 0 ? 1 : Math.min(1, done / total);
      const filled = Math.round(share * barCells);
      const bar = "█".repeat(filled) + "░".repeat(barCells - filled);
      note(`${label.padEnd(20)} ${bar} ${formatSize(done)} of ${formatSize(total)}`);
    }
    this.#drawnLines = this.#bars.size;
  }
}
