import type { Figure } from "./figure.ts";

/** The figures as a table: value, goal, A/A control, whether the goal is reached. */
export function tableOf(figures: readonly Figure[]): string {
  const header = ["figure", "value", "goal", "control", ""];
  const rows = figures.map((figure) => [
    figure.name,
    `${figure.value} ${figure.unit}`.trim(),
    figure.goal === undefined ? "" : `${figure.better === "lower" ? "≤" : "≥"} ${figure.goal}`,
    figure.control === undefined ? "" : `${figure.control}`,
    figure.goal === undefined ? "" : figure.holds ? "holds" : "MISSED",
  ]);
  const widths = header.map((cell, column) =>
    Math.max(cell.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const lines = [header, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n`;
}
