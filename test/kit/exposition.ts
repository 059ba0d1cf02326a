type Type = "counter" | "gauge" | "histogram";

/** A metric as Prometheus would take it. */
export interface Family {
  readonly type: Type;
  readonly help: string;
  /** Of a histogram, with the ends of their names as a label that no metric can have: `""`. */
  readonly samples: readonly { readonly labels: Readonly<Record<string, string>>; readonly value: number }[];
}

const metricName = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const labelName = "[a-zA-Z_][a-zA-Z0-9_]*";
const comment = new RegExp(`^# (HELP|TYPE) (${metricName}) (.*)$`);
const sample = new RegExp(`^(${metricName})(?:\\{([^\n]*)\\})? (\\S+)$`);
const label = new RegExp(`^(${labelName})="((?:[^"\\\\\n]|\\\\[\\\\"n])*)"(?:,(?!$)|$)`);
const number = /^[+-]?(\d+(\.\d+)?([eE][+-]?\d+)?|Inf)$|^NaN$/;

/**
 * Reads Prometheus' text format 0.0.4 and refuses whatever its documentation does not allow, or promtool would object to: a sample
 * without its HELP and TYPE before it, a family in two places, a series twice, an escape that is none, a number that is none, a
 * counter that is not named so, a last line without its end.
 */
export function parseExposition(text: string): ReadonlyMap<string, Family> {
  const families = new Map<string, { type: Type; help: string; samples: Family["samples"][number][] }>();
  const helps = new Map<string, string>();
  const series = new Set<string>();
  let current: string | undefined;
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  for (const line of text.slice(0, -1).split("\n")) {
    if (line === "") continue;
    const refuse = (why: string): never => {
      throw new Error(`${why}: ${line}`);
    };
    if (line.startsWith("#")) {
      const [, kind, name = "", rest = ""] = comment.exec(line) ?? refuse("not a comment that is known");
      if (kind === "HELP") {
        if (helps.has(name)) refuse("a second HELP");
        if (/\\(?![\\n])/.test(rest)) refuse("an escape that is none");
        helps.set(name, rest);
        current = undefined;
        continue;
      }
      if (families.has(name)) refuse("a second TYPE");
      if (rest !== "counter" && rest !== "gauge" && rest !== "histogram")
        return refuse("a type that is not used here");
      const help = helps.get(name) ?? refuse("a TYPE without HELP before it");
      if (rest === "counter" && !name.endsWith("_total")) refuse("a counter that is not named so");
      families.set(name, { type: rest, help, samples: [] });
      current = name;
      continue;
    }
    const [, whole = "", inside = "", value = ""] = sample.exec(line) ?? refuse("not a sample");
    const [name, end] = families.get(current ?? "")?.type === "histogram" ? ofHistogram(whole) : [whole];
    if (name !== current) refuse("a sample outside of its family");
    if (!number.test(value)) refuse("not a number");
    const labels = parseLabels(inside) ?? refuse("labels that are none");
    if (end !== undefined) labels[""] = end;
    const key = JSON.stringify([name, Object.entries(labels).sort()]);
    if (series.has(key)) refuse("a series that is there already");
    series.add(key);
    families.get(name)?.samples.push({ labels, value: Number(value.replace("Inf", "Infinity")) });
  }
  return families;
}

/** `a_b_bucket` → `a_b`, `bucket`. */
function ofHistogram(name: string): [string, string] {
  const [, family = "", end = ""] = /^(.*)_(bucket|sum|count)$/.exec(name) ?? [];
  return [family, end];
}

function parseLabels(text: string): Record<string, string> | undefined {
  const labels: Record<string, string> = {};
  for (let rest = text; rest !== ""; ) {
    const found = label.exec(rest);
    const [whole = "", name = "", value = ""] = found ?? [];
    if (found === null || Object.hasOwn(labels, name)) return undefined;
    labels[name] = value.replace(/\\(.)/g, (_, escaped: string) => (escaped === "n" ? "\n" : escaped));
    rest = rest.slice(whole.length);
  }
  return labels;
}
