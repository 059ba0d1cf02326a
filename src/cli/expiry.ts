import { parseDuration } from "../std/duration.ts";
import { CliError } from "./context.ts";

const dayMs = 86_400_000;

/**
 * The end that `--expires` means: a span from now (`12h`, `30d`, `8w`), a day (`2027-01-01`: as it begins, UTC), or a time
 * of RFC 3339.
 *
 * @throws CliError `usage`
 */
export function parseExpiry(text: string, now = Date.now()): Date {
  const [, days, unit] = /^(\d{1,5})\s*([dw])$/.exec(text.trim()) ?? [];
  const span = days === undefined ? parseDuration(text) : Number(days) * (unit === "w" ? 7 : 1) * dayMs;
  if (span !== undefined && span > 0) return new Date(now + span);
  const isDate = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2}))?$/.test(text.trim());
  const at = isDate ? new Date(text.trim()) : undefined;
  // JavaScript takes February 30th for March 2nd.
  if (at !== undefined && !Number.isNaN(at.getTime()) && isCalendarDay(text.trim())) return at;
  throw new CliError("usage", `${JSON.stringify(text)} is no time`, {
    next: "Give a span such as 12h or 30d, or a day such as 2027-01-01.",
  });
}

function isCalendarDay(text: string): boolean {
  const day = text.slice(0, 10);
  return new Date(`${day}T00:00:00Z`).toISOString().startsWith(day);
}
