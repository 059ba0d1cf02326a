/** Header fields as they came over the wire: names and values in turn (`rawHeaders` of node:http). */
export type RawHeaders = readonly string[];

/** Of one connection, not of the message (RFC 9110, 7.6.1), with those of its predecessors that are still met. */
const ofConnection: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
]);

/**
 * The fields that go on with a message: without those of the connection, those that `Connection` names, HTTP/2's pseudo fields,
 * and those that `drop` wants none of.
 *
 * @param drop is given names in lower case
 */
export function endToEnd(headers: RawHeaders, drop: (name: string, value: string) => boolean): string[] {
  const named = namedByConnection(headers);
  const kept: string[] = [];
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const [shown, value] = [headers[at] as string, headers[at + 1] as string];
    const name = shown.toLowerCase();
    if (name.startsWith(":") || ofConnection.has(name) || named?.has(name) || drop(name, value)) continue;
    kept.push(shown, value);
  }
  return kept;
}

/** The first value of a field. */
export function headerOf(headers: RawHeaders, wanted: string): string | undefined {
  for (let at = 0; at + 1 < headers.length; at += 2)
    if (headers[at]?.toLowerCase() === wanted) return headers[at + 1];
  return undefined;
}

function namedByConnection(headers: RawHeaders): ReadonlySet<string> | undefined {
  let named: Set<string> | undefined;
  for (let at = 0; at + 1 < headers.length; at += 2) {
    if (headers[at]?.toLowerCase() !== "connection") continue;
    for (const name of (headers[at + 1] ?? "").split(",")) {
      const clean = name.trim().toLowerCase();
      if (clean === "" || clean === "close" || clean === "keep-alive") continue;
      named ??= new Set();
      named.add(clean);
    }
  }
  return named;
}
