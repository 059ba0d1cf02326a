/** What a JUnit report of `bun test` says. */
export interface Report {
  readonly passed: number;
  readonly skipped: readonly string[];
  readonly failed: readonly string[];
}

const entities: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/** Reads the report that `bun test --reporter=junit` writes: test cases, nested in suites. */
export function readReport(xml: string): Report {
  let passed = 0;
  const skipped: string[] = [];
  const failed: string[] = [];
  for (const [, attributes, end, body] of xml.matchAll(
    /<testcase ([^>]*?)(\/?)>(?:(?<!\/>)([\s\S]*?)<\/testcase>)?/g,
  )) {
    const group = attributeOf(attributes ?? "", "classname");
    const name = [group, attributeOf(attributes ?? "", "name")].filter((part) => part !== "").join(" > ");
    const inside = end === "/" ? "" : (body ?? "");
    if (/<(failure|error)\b/.test(inside)) failed.push(name);
    else if (/<skipped\b/.test(inside)) skipped.push(name);
    else passed++;
  }
  return { passed, skipped, failed };
}

function attributeOf(attributes: string, name: string): string {
  const value = attributes.match(new RegExp(`(?:^|\\s)${name}="([^"]*)"`))?.[1] ?? "";
  return value.replace(/&(?:#(\d+)|(\w+));/g, (whole, code: string | undefined, word: string | undefined) =>
    code === undefined ? (entities[word ?? ""] ?? whole) : String.fromCodePoint(Number(code)),
  );
}
