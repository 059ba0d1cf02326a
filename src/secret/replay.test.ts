import { expect, test } from "bun:test";
import { Redacted } from "../std/redacted.ts";
import type { SecretError } from "./error.ts";
import { type BootKey, generateBootKey, type SealContext, sealTo } from "./seal.ts";

const value = new Redacted("canary-3307");
const bound: SealContext = {
  requestId: "request-1",
  containerId: "c-1",
  workerId: "worker-1",
  bootNonce: "boot-1",
  expiresAt: new Date(Date.now() + 60_000),
};
const later = new Date(bound.expiresAt.getTime() + 1000);

const outcome = async (key: BootKey, sealed: string, context: SealContext): Promise<string> =>
  await key.open(sealed, context).then(
    () => "accepted",
    (error: SecretError) => error.code,
  );

/** Every way in which what was sealed for one request can come again, and what is said to it. */
const replays: readonly {
  readonly to: string;
  readonly change?: Partial<SealContext>;
  /** To another key than the one that it was sealed to. */
  readonly elsewhere?: true;
  /** After it was opened as it should be. */
  readonly twice?: true;
  readonly is: string;
}[] = [
  { to: "another worker that holds another key", elsewhere: true, is: "undecryptable" },
  { to: "another worker, told so", elsewhere: true, change: { workerId: "worker-2" }, is: "undecryptable" },
  { to: "another worker that shares the key", change: { workerId: "worker-2" }, is: "undecryptable" },
  { to: "another container", change: { containerId: "c-2" }, is: "undecryptable" },
  { to: "another request", change: { requestId: "request-2" }, is: "undecryptable" },
  {
    to: "the next boot of the worker",
    elsewhere: true,
    change: { bootNonce: "boot-2" },
    is: "undecryptable",
  },
  { to: "the next boot with the key of this one", change: { bootNonce: "boot-2" }, is: "undecryptable" },
  { to: "itself, to count for longer", change: { expiresAt: later }, is: "undecryptable" },
  {
    to: "itself, shifted over a field's end",
    change: { requestId: "request-1c-1", containerId: "" },
    is: "undecryptable",
  },
  { to: "itself a second time", twice: true, is: "replayed" },
  {
    to: "another container, after it was opened",
    twice: true,
    change: { containerId: "c-2" },
    is: "replayed",
  },
  {
    to: "another request, after it was opened",
    twice: true,
    change: { requestId: "r-2" },
    is: "undecryptable",
  },
  { to: "the next boot, after it was opened", twice: true, change: { bootNonce: "boot-2" }, is: "replayed" },
];

for (const { to, change, elsewhere, twice, is } of replays) {
  test(`what was sealed for a request is refused when it is replayed to ${to}`, async () => {
    const [key, other] = [await generateBootKey(), await generateBootKey()];
    const sealed = await sealTo(key.publicKey, value, bound);
    if (twice) expect(await outcome(key, sealed, bound)).toBe("accepted");
    for (let attempt = 0; attempt < 3; attempt += 1) {
      expect(await outcome(elsewhere ? other : key, sealed, { ...bound, ...change })).toBe(is);
    }
    // What failed opened nothing, and has not used the request up.
    expect(await outcome(key, sealed, bound)).toBe(twice ? "replayed" : "accepted");
  });
}

test("what was opened stays refused until it has expired, and is refused for that then", async () => {
  const key = await generateBootKey();
  const short = { ...bound, expiresAt: new Date(Date.now() + 200) };
  const sealed = await sealTo(key.publicKey, value, short);
  expect(await outcome(key, sealed, short)).toBe("accepted");
  const said = new Set<string>();
  while (!said.has("expired")) said.add(await outcome(key, sealed, short));
  expect([...said].filter((each) => each !== "replayed")).toEqual(["expired"]);
});

test("of many at once one opens", async () => {
  const key = await generateBootKey();
  const sealed = await sealTo(key.publicKey, value, bound);
  const all = await Promise.all(Array.from({ length: 50 }, () => outcome(key, sealed, bound)));
  expect(all.filter((each) => each === "accepted")).toHaveLength(1);
  expect(new Set(all)).toEqual(new Set(["accepted", "replayed"]));
});

test("what is remembered of opened requests goes when they expire, and nothing that would count for hours is taken", async () => {
  const key = await generateBootKey();
  const end = new Date(Date.now() + 300);
  for (let at = 0; at < 100; at += 1) {
    const each = { ...bound, requestId: `r${at}`, expiresAt: end };
    expect(await outcome(key, await sealTo(key.publicKey, value, each), each)).toMatch(/accepted|expired/);
  }
  const long = { ...bound, expiresAt: new Date(Date.now() + 2 * 3_600_000) };
  expect(await outcome(key, await sealTo(key.publicKey, value, long), long)).toBe("expired");
  const probe = { ...bound, requestId: "probe" };
  while (Date.now() <= end.getTime());
  expect(await outcome(key, await sealTo(key.publicKey, value, probe), probe)).toBe("accepted");
  expect(key.openedRequests).toBe(1);
});
