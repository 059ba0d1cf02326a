const defaultLifeMs = 60_000;
const longestLifeMs = 15 * 60_000;
/** A request must still be on its way when the signature ends. */
const marginMs = 10_000;

/**
 * Until when a redirect's target may be asked again, in milliseconds since 1970: what its signature says (S3
 * `X-Amz-Date`+`X-Amz-Expires`, Google `X-Goog-…`, CloudFront and S3 v2 `Expires`, Azure `se`), a minute when it says
 * nothing, and never more than a quarter of an hour.
 */
export function redirectEndsAt(url: URL, nowMs: number): number {
  const end = signedEnd(url.searchParams, nowMs);
  if (end === undefined) return nowMs + defaultLifeMs;
  return Math.min(end - marginMs, nowMs + longestLifeMs);
}

function signedEnd(query: URLSearchParams, nowMs: number): number | undefined {
  const parameters = new Map([...query].map(([name, value]) => [name.toLowerCase(), value]));
  for (const vendor of ["amz", "goog"]) {
    const seconds = wholeNumber(parameters.get(`x-${vendor}-expires`));
    if (seconds === undefined) continue;
    return (basicDate(parameters.get(`x-${vendor}-date`)) ?? nowMs) + seconds * 1000;
  }
  const expires = wholeNumber(parameters.get("expires"));
  if (expires !== undefined) return expires * 1000;
  const azure = Date.parse(parameters.get("se") ?? "");
  return Number.isNaN(azure) ? undefined : azure;
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,12}$/.test(text) ? Number(text) : undefined;
}

/** `20260102T030405Z` */
function basicDate(text: string | undefined): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text ?? "");
  if (match === null) return undefined;
  const [year = 0, month = 1, day, hour, minute, second] = match.slice(1).map(Number);
  return Date.UTC(year, month - 1, day, hour, minute, second);
}
