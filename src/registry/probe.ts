import type { PinnedRequest } from "./pinned-fetch.ts";

type Asked = Pick<PinnedRequest, "method" | "url" | "headers">;

const travelling: ReadonlySet<string> = new Set(["accept", "authorization"]);

/**
 * The lightest request that says whether the host would answer this one: to the same URL, so that nothing of it goes
 * anywhere else. A range is asked for by its first byte, with the same credential; everything else by HEAD and without
 * one, as logins are counted.
 */
export function probeOf({ url, headers }: Asked): Asked {
  const ranged = Object.keys(headers).some((name) => name.toLowerCase() === "range");
  const kept = Object.entries(headers).filter(([name]) => travelling.has(name.toLowerCase()));
  if (ranged) return { method: "GET", url, headers: { ...Object.fromEntries(kept), Range: "bytes=0-0" } };
  const bare = kept.filter(([name]) => name.toLowerCase() !== "authorization");
  return { method: "HEAD", url, headers: Object.fromEntries(bare) };
}
