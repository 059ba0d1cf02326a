import { buildCommand, type Command, type CommandContext } from "@stricli/core";
import { printFailure } from "./failure.ts";

/** The flag that every command has. */
export const jsonFlag = { kind: "boolean", default: false, brief: "Print JSON" } as const;

interface BaseFlags {
  readonly json: boolean;
}

/** What a command does; the number that it returns, if any, is the exit code. */
export type Action<Flags extends BaseFlags, Args extends readonly (string | undefined)[]> = (
  flags: Flags,
  ...args: Args
) => Promise<number | undefined>;

/**
 * Makes a command whose failures are told in one way: the message, the next step, exit code 1 (2 for wrong usage).
 * `parameters` are Stricli's, without the `json` flag.
 */
export function command<
  Flags extends BaseFlags,
  Args extends readonly (string | undefined)[] = [],
>(definition: {
  readonly brief: string;
  readonly fullDescription?: string;
  readonly flags?: Record<string, unknown>;
  readonly aliases?: Record<string, string>;
  readonly positional?: unknown;
  readonly run: Action<Flags, Args>;
}): Command<CommandContext> {
  return buildCommand({
    docs: {
      brief: definition.brief,
      ...(definition.fullDescription === undefined ? {} : { fullDescription: definition.fullDescription }),
    },
    parameters: {
      flags: { ...definition.flags, json: jsonFlag },
      ...(definition.aliases === undefined ? {} : { aliases: definition.aliases }),
      ...(definition.positional === undefined ? {} : { positional: definition.positional }),
    },
    async func(flags: Flags, ...args: readonly string[]) {
      try {
        process.exitCode = (await definition.run(flags, ...(args as unknown as Args))) ?? 0;
      } catch (thrown) {
        process.exitCode = printFailure(thrown, flags.json);
      }
    },
  } as never) as unknown as Command<CommandContext>;
}

/** Positional parameters by name and purpose. */
export function words(
  ...parameters: readonly { readonly placeholder: string; readonly brief: string }[]
): unknown {
  return {
    kind: "tuple",
    parameters: parameters.map((parameter) => ({ parse: String, ...parameter })),
  };
}
