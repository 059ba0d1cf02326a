import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Canaries, formsOf } from "./canary.ts";

const values = {
  "a password": Buffer.from(`Cn${randomBytes(20).toString("hex")}`),
  "what every escape changes": Buffer.from('p"a\\s/s&w=o+r%d?<>#'),
  "a key": randomBytes(32),
};

/** As software writes a value, with something before and behind it. */
const writers: Record<string, (value: Buffer) => Buffer | string> = {
  "as it is": (value) => Buffer.concat([randomBytes(7), value, randomBytes(5)]),
  "basic credentials": (value) => `Basic ${Buffer.concat([Buffer.from("u:"), value]).toString("base64")}`,
  "basic credentials of a longer name": (value) =>
    Buffer.concat([Buffer.from("user:"), value]).toString("base64"),
  "base64 in base64's middle": (value) =>
    Buffer.concat([randomBytes(300), value, randomBytes(77)]).toString("base64"),
  "a token of a URL": (value) => Buffer.concat([randomBytes(31), value]).toString("base64url"),
  "a bytea of COPY": (value) => `\\\\x${value.toString("hex")}`,
  "upper-case hexadecimal": (value) => value.toString("hex").toUpperCase(),
  "a query, all escaped": (value) =>
    [...value].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""),
  "JSON, all escaped": (value) =>
    [...value].map((byte) => `\\u00${byte.toString(16).padStart(2, "0")}`).join(""),
};
const textWriters: typeof writers = {
  ...writers,
  "a query": (value) => `https://host/?password=${encodeURIComponent(value.toString())}&x`,
  JSON: (value) => JSON.stringify({ password: value.toString() }),
};

for (const [entry, value] of Object.entries(values)) {
  const all = entry === "a key" ? writers : textWriters;
  test.each(Object.keys(all))(`${entry} that was left behind is found: %s`, async (way) => {
    const canaries = new Canaries();
    canaries.plant(entry, value);
    canaries.plant("another", randomBytes(32));
    const left = all[way]?.(value) ?? "";
    expect(new Set(canaries.inText("here", Buffer.from(left as string)).map((hit) => hit.entry))).toEqual(
      new Set([entry]),
    );
    const dir = await mkdtemp(join(tmpdir(), "canary-test-"));
    try {
      await writeFile(join(dir, "clean"), randomBytes(100_000));
      expect(await canaries.inFiles([dir])).toEqual([]);
      await writeFile(join(dir, "left"), left);
      // What is in a line that a pattern file cannot hold is not found in files; none of ours is.
      const found = await canaries.inFiles([dir]);
      expect(new Set(found.map(({ entry: whose, place }) => `${whose} ${place}`))).toEqual(
        new Set([`${entry} ${join(dir, "left")}`]),
      );
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
}

test("a private key is found by its text and by its bytes", () => {
  const canaries = new Canaries();
  const der = randomBytes(138);
  canaries.privateKey(
    "key",
    `-----BEGIN PRIVATE KEY-----\n${der.toString("base64")}\n-----END PRIVATE KEY-----\n`,
  );
  expect(canaries.inText("x", der).map(({ entry }) => entry)).toEqual(["key (bytes)"]);
  expect(canaries.inText("x", der.toString("base64")).length).toBeGreaterThan(1);
});

test("what is compressed is not found, and has to be looked for before", () => {
  const canaries = new Canaries();
  const value = canaries.password("compressed");
  expect(canaries.inText("x", gzipSync(value.repeat(3)))).toEqual([]);
});

test("no form is so short that chance would make it", () => {
  for (const value of Object.values(values))
    for (const [, bytes] of formsOf(value.subarray(0, 12))) expect(bytes.length).toBeGreaterThanOrEqual(12);
});
