const unitsMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** Milliseconds of a time as systemd and Go write it: `500ms`, `30s`, `1.5m`, `2h`. `undefined` when it is none. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)$/.exec(text.trim());
  if (match === null) return undefined;
  const ms = Math.round(Number(match[1]) * (unitsMs[match[2] ?? ""] ?? Number.NaN));
  return Number.isSafeInteger(ms) ? ms : undefined;
}

/** A time as people say it: `40 s`, `16 min`, `3 h`; whole units, at least two of each but the smallest. */
export function formatDuration(ms: number): string {
  if (ms < 2 * 60_000) return `${Math.round(ms / 1000)} s`;
  return ms < 2 * 3_600_000 ? `${Math.floor(ms / 60_000)} min` : `${Math.floor(ms / 3_600_000)} h`;
}
