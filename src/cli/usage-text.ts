import { ArgumentScannerError, formatMessageForArgumentScannerError, text_en } from "@stricli/core";
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

function wordsOf(thrown: unknown): string {
  if (!(thrown instanceof ArgumentScannerError)) return messageOf(thrown);
  return formatMessageForArgumentScannerError(thrown, {
    // The parsers' own messages show the input.
    ArgumentParseError: ({ externalFlagNameOrPlaceholder: name, exception }) =>
      `${/^[a-z]/.test(name) ? "--" : ""}${name}: ${messageOf(exception)}`,
    FlagNotFoundError: ({ input, corrections }) =>
      `there is no flag --${input}${corrections.length === 0 ? "" : `; did you mean ${corrections.map((flag) => `--${flag}`).join(" or ")}?`}`,
    AliasNotFoundError: ({ input }) => `there is no flag -${input}`,
    UnsatisfiedPositionalError: ({ placeholder }) => `${placeholder} is missing`,
  });
}

function told(words: string): string {
  return `oci-node: ${printable(words, 2000)}\n${see}`;
}
