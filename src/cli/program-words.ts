import { execAliases, execFlags } from "./exec.ts";
import { runAliases, runFlags } from "./run.ts";

type Flags = Readonly<Record<string, object>>;
type Aliases = Readonly<Record<string, string>>;

/** Of the commands that take a program's words: their options that have a value. */
const withValue: Readonly<Record<string, ReadonlySet<string>>> = {
  exec: valued(execFlags, execAliases),
  run: valued(runFlags, runAliases),
};

/**
 * The words of a command line with the program's words marked as such, so that its options are its own:
 * `exec -it ID ls -l` is `exec -it ID -- ls -l`. What has a `--` stays as it is.
 */
export function markProgramWords(argv: readonly string[]): readonly string[] {
  const [command = "", ...words] = argv;
  const known = Object.hasOwn(withValue, command) ? withValue[command] : undefined;
  if (known === undefined) return argv;
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? "";
    if (word === "--") return argv;
    if (takesNext(word, known)) at += 1;
    else if (!word.startsWith("-")) return marked(command, words, at + 1);
  }
  return argv;
}

/** Words of ours may come behind the image or container as well, as long as there is a mark. */
function marked(command: string, words: readonly string[], at: number): readonly string[] {
  if (at >= words.length || words.includes("--", at)) return [command, ...words];
  return [command, ...words.slice(0, at), "--", ...words.slice(at)];
}

/** `-e`, `--env`, and `-ite`, where the last of several has the value. */
function takesNext(word: string, known: ReadonlySet<string>): boolean {
  if (known.has(word)) return true;
  return /^-[a-z]{2,}$/i.test(word) && known.has(`-${word.at(-1)}`);
}

function valued(flags: Flags, aliases: Aliases): ReadonlySet<string> {
  const names = Object.keys(flags).filter((name) => (flags[name] as { kind?: string }).kind !== "boolean");
  const short = Object.keys(aliases).filter((alias) => names.includes(aliases[alias] ?? ""));
  const long = names.flatMap((name) => [name, name.replace(/[A-Z]/g, (upper) => `-${upper.toLowerCase()}`)]);
  return new Set([...short.map((alias) => `-${alias}`), ...long.map((name) => `--${name}`)]);
}
