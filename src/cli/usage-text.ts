import {
  AliasNotFoundError,
  ArgumentParseError,
  FlagNotFoundError,
  text_en,
  UnsatisfiedPositionalError,
} from "@stricli/core";
import { messageOf } from "../std/error.ts";
import { printable } from "../std/printable.ts";

const see = "  See `oci-node --help`, or --help of the command.";

/** What Stricli says of a command line that it cannot read, in the form of every other failure: who, what, and what to do next. */
export const usageText = {
  ...text_en,
  exceptionWhileParsingArguments: (thrown: unknown) => told(wordsOf(thrown)),
  noCommandRegisteredForInput({
    input,
    corrections,
  }: {
    readonly input: string;
    readonly corrections: readonly string[];
  }): string {
    const meant = corrections.length === 0 ? "" : `; did you mean ${corrections.join(" or ")}?`;
    return told(`there is no command ${JSON.stringify(input)}${meant}`);
  },
};

// By class: Stricli's own way goes by the classes' names, which the executable does not have.
function wordsOf(thrown: unknown): string {
  // The parsers' own messages show the input.
  if (thrown instanceof ArgumentParseError) {
    const name = thrown.externalFlagNameOrPlaceholder;
    return `${/^[a-z]/.test(name) ? "--" : ""}${name}: ${messageOf(thrown.exception)}`;
  }
  if (thrown instanceof FlagNotFoundError) {
    const { input, corrections } = thrown;
    const meant = corrections.map((flag) => `--${flag}`).join(" or ");
    return `there is no flag --${input}${meant === "" ? "" : `; did you mean ${meant}?`}`;
  }
  if (thrown instanceof AliasNotFoundError) return `there is no flag -${thrown.input}`;
  if (thrown instanceof UnsatisfiedPositionalError) return `${thrown.placeholder} is missing`;
  return messageOf(thrown);
}

function told(words: string): string {
  return `oci-node: ${printable(words, 2000)}\n${see}`;
}
