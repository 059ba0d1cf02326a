import { expect, test } from "bun:test";
import { redirectEndsAt } from "./redirect-expiry.ts";

const now = Date.UTC(2026, 0, 2, 3, 4, 5);

test.each([
  ["", 60_000],
  ["?X-Amz-Date=20260102T030405Z&X-Amz-Expires=300", 290_000],
  ["?x-amz-date=20260102T030305Z&x-amz-expires=300", 230_000],
  ["?X-Amz-Expires=100", 90_000],
  ["?X-Goog-Date=20260102T030405Z&X-Goog-Expires=604800", 15 * 60_000],
  [`?Expires=${now / 1000 + 120}&Signature=x&Key-Pair-Id=k`, 110_000],
  ["?se=2026-01-02T03%3A06%3A05Z&sig=x", 110_000],
  [`?Expires=${now / 1000 - 5}`, -15_000],
  ["?X-Amz-Date=20260102T030405Z&X-Amz-Expires=forever", 60_000],
  ["?se=whenever", 60_000],
])("%s is good for so long", (query, lifeMs) => {
  expect(redirectEndsAt(new URL(`https://store.test/x${query}`), now) - now).toBe(lifeMs);
});
