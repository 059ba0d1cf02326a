/** Options of commands that take a program's words, by what follows them. Of all others only switches are known. */
const withValue: Readonly<Record<string, ReadonlySet<string>>> = {
  exec: new Set(["-e", "--env", "-w", "--workdir", "-u", "--user"]),
};

/**
 * The words of a command line with the program's words marked as such, so that its options are its own:
 * `exec -it ID ls -l` is `exec -it ID -- ls -l`. What has a `--` stays as it is.
 */
export function markProgramWords(argv: readonly string[]): readonly string[] {
  const [command = "", ...words] = argv;
  const valued = Object.hasOwn(withValue, command) ? withValue[command] : undefined;
  if (valued === undefined) return argv;
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? "";
    if (word === "--") return argv;
    if (takesNext(word, valued)) at += 1;
    else if (!word.startsWith("-"))
      return words[at + 1] === "--"
        ? argv
        : [command, ...words.slice(0, at + 1), "--", ...words.slice(at + 1)];
  }
  return argv;
}

/** `-e`, `--env`, and `-ite`, where the last of several has the value. */
function takesNext(word: string, valued: ReadonlySet<string>): boolean {
  if (valued.has(word)) return true;
  return /^-[a-z]{2,}$/i.test(word) && valued.has(`-${word.at(-1)}`);
}
