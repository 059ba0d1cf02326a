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
  const switches = switchesOff({ ...definition.flags, json: jsonFlag });
  return buildCommand({
    docs: {
      brief: definition.brief,
      // Which Stricli shows in place of the brief.
      ...(definition.fullDescription === undefined
        ? {}
        : { fullDescription: `${definition.brief}. ${definition.fullDescription}` }),
    },
    parameters: {
      flags: withoutDefaults({ ...definition.flags, json: jsonFlag }),
      ...(definition.aliases === undefined ? {} : { aliases: definition.aliases }),
      ...(definition.positional === undefined ? {} : { positional: definition.positional }),
    },
    async func(flags: Flags, ...args: readonly string[]) {
      try {
        const off = switches.filter((name) => (flags as FlagSettings)[name] === undefined);
        const all = { ...flags, ...Object.fromEntries(off.map((name) => [name, false])) };
        process.exitCode = (await definition.run(all, ...(args as unknown as Args))) ?? 0;
      } catch (thrown) {
        process.exitCode = printFailure(thrown, flags.json);
      }
    },
  } as never) as unknown as Command<CommandContext>;
}

type FlagSettings = Record<string, unknown>;

/** Switches that are off unless they are given. */
function switchesOff(flags: FlagSettings): readonly string[] {
  const off = Object.entries(flags).filter(([, flag]) => isSwitch(flag));
  return off.map(([name]) => name);
}

/** That a switch is off by itself need not be told: Stricli would, behind the longest line, out of most terminals. */
function withoutDefaults(flags: FlagSettings): FlagSettings {
  const each = Object.entries(flags).map(([name, flag]) => {
    if (!isSwitch(flag)) return [name, flag];
    return [name, { kind: flag.kind, brief: flag.brief, optional: true, withNegated: false }];
  });
  return Object.fromEntries(each);
}

function isSwitch(flag: unknown): flag is { kind: "boolean"; default: false; brief: string } {
  const { kind, default: standing } = flag as { kind?: unknown; default?: unknown };
  return kind === "boolean" && standing === false;
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
