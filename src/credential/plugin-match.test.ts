import { describe, expect, test } from "bun:test";
import { matchesImage, matchesRegistry, parseImagePattern } from "./plugin-match.ts";

function matches(glob: string, image: string): boolean {
  const pattern = parseImagePattern(glob);
  return pattern !== undefined && matchesImage(pattern, image);
}

describe("a pattern for images", () => {
  // The rules and their limits as the kubelet's documentation and its own cases state them.
  test.each([
    ["*.kubernetes.io", "prefix.kubernetes.io", true],
    ["prefix.*.io", "prefix.kubernetes.io", true],
    ["prefix.kubernetes.*", "prefix.kubernetes.io", true],
    ["*-good.kubernetes.io", "prefix-good.kubernetes.io", true],
    ["*.kubernetes.io/blah", "prefix.kubernetes.io/blah", true],
    ["prefix.*.io/foo", "prefix.kubernetes.io/foo/bar", true],
    ["*.kubernetes.io:1111/blah", "prefix.kubernetes.io:1111/blah", true],
    ["prefix.*.io:1111/foo", "prefix.kubernetes.io:1111/foo/bar", true],
    ["*.kubernetes.io", "kubernetes.io", false],
    ["*.*.kubernetes.io", "prefix.kubernetes.io", false],
    ["*.*.kubernetes.io", "kubernetes.io", false],
    ["kubernetes.io", "kubernetes.com", false],
    ["k*.io", "quay.io", false],
    ["*.kubernetes.io:1234/blah", "prefix.kubernetes.io:1111/blah", false],
    ["prefix.*.io/foo", "prefix.kubernetes.io:1111/foo/bar", false],
    ["https://*.docker.io/v2/", "prefix.docker.io/path", true],
    ["https://prefix.*.io/path", "prefix.docker.io/other", false],
    ["*.dkr.ecr.*.amazonaws.com", "111111111111.dkr.ecr.eu-west-1.amazonaws.com/app", true],
    ["*.dkr.ecr.*.amazonaws.com", "111111111111.dkr.ecr.eu-west-1.amazonaws.com.evil.com/app", false],
    ["*.dkr.ecr.*.amazonaws.com", "evil.com/111111111111.dkr.ecr.eu-west-1.amazonaws.com", false],
    ["*", "localhost/app", true],
    ["*", "a.b/app", false],
    ["GCR.io", "gcr.io/app", true],
    ["gcr?io", "gcr.io/app", false],
    ["g?r.io", "gcr.io/app", true],
    ["[::1]:5000", "[::1]:5000/app", true],
    ["[::1]:5000", "[::2]:5000/app", false],
  ] as [string, string, boolean][])("%s and %s: %p", (glob, image, expected) => {
    expect(matches(glob, image)).toBe(expected);
  });

  test("with a path is for some images of its registry", () => {
    const pattern = parseImagePattern("*.acme.test/team");
    if (pattern === undefined) throw new Error("no pattern");
    expect(matchesRegistry(pattern, "eu.acme.test")).toBe(true);
    expect(matchesRegistry(pattern, "acme.test")).toBe(false);
    expect(matchesImage(pattern, "eu.acme.test")).toBe(false);
  });

  test.each([[""], ["a b"], ["a/b?c"], ["user@host"], ["ftp://host"], ["a:b"], ["a".repeat(600)]])(
    "%p is none",
    (text) => {
      expect(parseImagePattern(text)).toBeUndefined();
    },
  );

  test("is matched in a bounded time, however many globs it has", () => {
    const started = performance.now();
    expect(matches(`${"a*".repeat(200)}b`, `${"a".repeat(500)}`)).toBe(false);
    expect(performance.now() - started).toBeLessThan(500);
  });
});
