import type { PinnedRequest } from "./pinned-fetch.ts";

type Asked = Pick<PinnedRequest, "method" | "url" | "headers">;

/** Enough to see bodies move, too little to be in anybody's way. */
const bodyBytes = 16 * 1024;
const travelling: ReadonlySet<string> = new Set(["accept", "authorization"]);

/**
 * The lightest request that says whether the host would answer this one: to the same URL, so that nothing of it goes
 * anywhere else. A range is asked for by the blob's first byte (or first 16 KiB, to see whether bodies move), with the same credential; everything else by HEAD and without
 * one, as logins are counted.
 */
export function probeOf({ url, headers }: Asked, withBody: boolean): Asked {
  const ranged = Object.keys(headers).some((name) => name.toLowerCase() === "range");
  const kept = Object.entries(headers).filter(([name]) => travelling.has(name.toLowerCase()));
  const range = `bytes=0-${withBody ? bodyBytes - 1 : 0}`;
  if (ranged) return { method: "GET", url, headers: { ...Object.fromEntries(kept), Range: range } };
  const bare = kept.filter(([name]) => name.toLowerCase() !== "authorization");
  return { method: "HEAD", url, headers: Object.fromEntries(bare) };
}

/** Reads a probe's body to its end; false when it is longer than what was asked for, which is not kept. */
export async function endsShortly(response: Response): Promise<boolean> {
  let sizeBytes = 0;
  for await (const chunk of response.body ?? []) {
    sizeBytes += chunk.length;
    if (sizeBytes > bodyBytes) return false;
  }
  return true;
}
