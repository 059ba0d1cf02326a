import { expect, test } from "bun:test";
import { createSecretName, secretNameCandidates } from "./secret-name.ts";

/** What the vault takes for a name: see its `assertName`. */
const pattern = /^[a-z0-9][a-z0-9._-]{0,254}$/;

/** Numbers in [0, 1) that are the same in each run (mulberry32). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const pieces = [
  "a",
  "A",
  "-",
  ".",
  ":",
  "/",
  "_",
  "0",
  "[::1]",
  "é",
  "İ",
  "K",
  "漢",
  "🦀",
  "\0",
  "\n",
  "\u202e",
  " ",
  "%2f",
];

/** Hosts and principals as nobody should write them, up to some thousand characters. */
function hostile(next: () => number): string {
  const length = Math.floor(next() ** 4 * 1500);
  return Array.from({ length }, () => pieces[Math.floor(next() * pieces.length)] ?? "").join("");
}

test("every candidate for any host and principal is a name of at most 255, and the same each time", () => {
  const next = numbers(20);
  for (let round = 0; round < 3000; round += 1) {
    const [host, principal] = [hostile(next), hostile(next)];
    const names = secretNameCandidates(host, principal);
    expect(names.filter((name) => !pattern.test(name))).toEqual([]);
    expect(new Set(names).size).toBe(names.length);
    expect(secretNameCandidates(host, principal)).toEqual(names);
  }
});

test("the last candidate belongs to one host and principal alone, however alike they are", () => {
  const hosts = ["a.b:5000", "a-b-5000", "a-b:5000", "a.b-5000", "a:b.5000", "a.b", "a.b:50", "", "a", "1:a"];
  const principals = [
    "default",
    "",
    "0",
    "00",
    "a.b",
    "A",
    "a",
    "b",
    ":",
    "5000",
    "identity:x",
    "x".repeat(2048),
  ];
  const long = ["x", "y"].map((end) => `${"h".repeat(250)}.${end}`);
  const pairs = [...hosts, ...long].flatMap((host) =>
    principals.map((principal) => [host, principal] as const),
  );
  const last = pairs.map(([host, principal]) => secretNameCandidates(host, principal).at(-1));
  expect(new Set(last).size).toBe(pairs.length);
});

test("whoever comes to names that are taken gets another one, whatever the order", () => {
  const claims = ["a.b:5000", "a-b-5000", "a-b:5000", "a.b-5000"].flatMap((host) =>
    ["alice", "bob", "default"].map((principal) => [host, principal] as const),
  );
  for (const order of [claims, claims.toReversed()]) {
    const taken = new Set<string>();
    for (const [host, principal] of order)
      taken.add(createSecretName(host, principal, (name) => taken.has(name)));
    expect(taken.size).toBe(claims.length);
    expect(taken).toContain("oci-registry-a-b-5000");
  }
});
