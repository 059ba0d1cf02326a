import { expect, test } from "bun:test";
import { parseExposition } from "./exposition.ts";

const head = "# HELP a_b what it is\n# TYPE a_b gauge\n";

test("samples are read with their labels and values", () => {
  const families = parseExposition(
    `${head}a_b{x="one",y="a\\\\b\\"c\\nd"} 1\na_b{x="two"} +Inf\na_b 1.5e-3\n`,
  );
  expect(families.get("a_b")).toEqual({
    type: "gauge",
    help: "what it is",
    samples: [
      { labels: { x: "one", y: 'a\\b"c\nd' }, value: 1 },
      { labels: { x: "two" }, value: Number.POSITIVE_INFINITY },
      { labels: {}, value: 0.0015 },
    ],
  });
});

test("a histogram's samples are its buckets, their sum and their count", () => {
  const about = "# HELP a_b what it is\n# TYPE a_b histogram\n";
  const families = parseExposition(`${about}a_b_bucket{le="+Inf"} 2\na_b_sum 3\na_b_count 2\n`);
  expect(families.get("a_b")?.samples.map(({ labels, value }) => [labels[""], value])).toEqual([
    ["bucket", 2],
    ["sum", 3],
    ["count", 2],
  ]);
  expect(() => parseExposition(`${about}a_b 1\n`)).toThrow();
});

test.each([
  ["no end of the last line", `${head}a_b 1`],
  ["a sample without a family", "a_b 1\n"],
  ["a sample of another family", `${head}a_c 1\n`],
  ["a series twice", `${head}a_b{x="1",y="2"} 1\na_b{y="2",x="1"} 1\n`],
  ["a label twice", `${head}a_b{x="1",x="2"} 1\n`],
  ["a quote that is not escaped", `${head}a_b{x="a"b"} 1\n`],
  ["an escape that is none", `${head}a_b{x="a\\tb"} 1\n`],
  ["a label without quotes", `${head}a_b{x=1} 1\n`],
  ["a comma at the end", `${head}a_b{x="1",} 1\n`],
  ["a number that is none", `${head}a_b Nan\n`],
  ["no number", `${head}a_b \n`],
  ["a name that is none", `${head}a-b 1\n`],
  ["a TYPE without HELP", "# TYPE a_b gauge\na_b 1\n"],
  ["a family in two places", `${head}a_b 1\n${head}a_b 2\n`],
  ["a counter that is not named so", "# HELP a what\n# TYPE a counter\na 1\n"],
])("%s is refused", (_, text) => {
  expect(() => parseExposition(text)).toThrow();
});
