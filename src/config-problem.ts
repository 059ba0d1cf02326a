import type { z } from "zod";

type Issue = z.core.$ZodIssue;

/** What is wrong in a configuration, for the person who wrote it: the field as TOML spells it, and a sentence. */
export interface ConfigProblem {
  /** `registry.hosts."harbor.lan".proxy`; empty: the file as a whole. */
  readonly field: string;
  readonly message: string;
}

/** Says in plain words what a check of the settings found. The value that was written is not repeated. */
export function configProblem(issue: Issue): ConfigProblem {
  const [path, message] = sentence(issue);
  return { field: fieldName(path), message };
}

/** `a."b.c"[0]`: the keys of tables as TOML has them, positions in lists in brackets. */
function fieldName(path: readonly PropertyKey[]): string {
  return path
    .map((part) => {
      if (typeof part === "number") return `[${part}]`;
      const key = String(part);
      return `.${/^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key)}`;
    })
    .join("")
    .replace(/^\./, "");
}

function sentence(issue: Issue): readonly [path: readonly PropertyKey[], message: string] {
  switch (issue.code) {
    case "unrecognized_keys":
      return [[...issue.path, issue.keys[0] ?? ""], "there is no such setting"];
    case "invalid_type":
      return [issue.path, issue.message.endsWith("undefined") ? "is missing" : wantedKind(issue)];
    case "invalid_value":
      return [issue.path, `must be ${oneOf(issue.values.map((value) => JSON.stringify(value)))}`];
    case "invalid_key":
      return [issue.path, issue.issues[0]?.message ?? "is not a name that can stand here"];
    case "too_small":
      return [issue.path, `must be ${issue.inclusive ? "at least" : "more than"} ${issue.minimum}`];
    case "too_big":
      return [issue.path, `must be ${issue.inclusive ? "at most" : "less than"} ${issue.maximum}`];
    default:
      return [issue.path, issue.message];
  }
}

const kinds: Readonly<Record<string, string>> = {
  string: 'text in quotes, such as "…"',
  boolean: "true or false, without quotes",
  number: "a number, without quotes",
  int: "a whole number, without quotes",
  array: 'a list, such as ["…"]',
  object: "a table",
  record: "a table",
};

function wantedKind({ expected }: { readonly expected: string }): string {
  return `must be ${kinds[expected] ?? `of the kind ${expected}`}`;
}

function oneOf(words: readonly string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/** The message of a setting that was found wrong where it is used, with the file in front in which it stands. */
export function inFile(message: string, source: string | undefined): string {
  const namesSetting = /^[a-z_]+(\.|:)/.test(message);
  return source === undefined || !namesSetting ? message : `${source}: ${message}`;
}

/**
 * The number of the line at which a text stops being TOML: the first after the longest beginning that can be parsed. The
 * parser tells no line. `undefined` for texts of too many lines to try.
 */
export function brokenLine(text: string, parses: (text: string) => boolean): number | undefined {
  const lines = text.split("\n");
  if (lines.length > linesTried) return undefined;
  for (let count = lines.length - 1; count > 0; count -= 1) {
    if (parses(lines.slice(0, count).join("\n"))) return count + 1;
  }
  return 1;
}

const linesTried = 2000;
