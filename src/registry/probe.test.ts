import { expect, test } from "bun:test";
import { endsShortly, probeOf } from "./probe.ts";

const url = new URL("https://r.test/v2/a/blobs/sha256:1");
const authorization = { Authorization: "Bearer t" };

test("a range is probed by the blob's first byte, or its first bytes, with the same credential", () => {
  const asked = {
    method: "GET" as const,
    url,
    headers: { ...authorization, Range: "bytes=5-9", "X-Other": "1" },
  };
  expect(probeOf(asked, false)).toEqual({
    method: "GET",
    url,
    headers: { ...authorization, Range: "bytes=0-0" },
  });
  expect(probeOf(asked, true).headers["Range"]).toBe("bytes=0-16383");
});

test("everything else is probed by HEAD, without a credential", () => {
  const headers = { ...authorization, Accept: "a" };
  for (const method of ["GET", "POST"] as const)
    expect(probeOf({ method, url, headers }, true)).toEqual({
      method: "HEAD",
      url,
      headers: { Accept: "a" },
    });
});

test("a probe's body is read no further than it was asked for", async () => {
  expect(await endsShortly(new Response(new Uint8Array(16_384)))).toBe(true);
  let pulled = 0;
  const endless = new ReadableStream({
    pull: (controller) => {
      pulled += 1;
      controller.enqueue(new Uint8Array(10_000));
    },
  });
  expect(await endsShortly(new Response(endless))).toBe(false);
  expect(pulled).toBeLessThan(5);
});
