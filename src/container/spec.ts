import { printable } from "../std/printable.ts";
import { checkName, checkOptions } from "./check-options.ts";
import type { NewContainer } from "./container.ts";
import { ContainerError } from "./error.ts";

/** Linux takes no longer argument or `NAME=value` (MAX_ARG_STRLEN of execve(2), the NUL at its end included). */
const wordBytesMax = 128 * 1024 - 1;
/** Of all arguments and variables: a quarter of the usual stack limit is 2 MiB; the image's own come on top. */
const allBytesMax = 1024 * 1024;
const cpuMillisMax = 4096 * 1000;
const memoryBytesMin = 4 * 1024 * 1024;

/**
 * Refuses what no worker could start, before it is queued.
 *
 * @throws ContainerError `bad_spec`, without the value of a variable
 */
export function checkSpec(wanted: NewContainer): void {
  const { command, env, cpuMillis, memoryBytes, name, network, options } = wanted;
  if (name !== undefined) checkName(name);
  checkOptions(options, network, env);
  const entrypoint = options.entrypoint ?? [];
  const variables = Object.entries(env);
  for (const [at, word] of entrypoint.entries()) checkWord(`word ${at + 1} of the entrypoint`, word);
  for (const [at, word] of command.entries()) checkWord(`argument ${at + 1} of the command`, word);
  for (const [name, value] of variables) {
    if (name === "" || name.includes("=") || name.includes("\0"))
      throw badSpec(
        `${JSON.stringify(printable(name, 60))} cannot name a variable`,
        "Write --env NAME=VALUE.",
      );
    checkWord(`variable ${printable(name, 60)}`, `${name}=${value}`);
  }
  const all = [...entrypoint, ...command, ...variables.map(([name, value]) => `${name}=${value}`)];
  const bytes = all.reduce((sum, word) => sum + Buffer.byteLength(word) + 1, 0);
  if (bytes > allBytesMax) {
    throw badSpec(
      `the command and the variables have ${bytes} bytes; ${allBytesMax} are allowed`,
      "Put what is large into the image, or have the program fetch it.",
    );
  }
  if (!Number.isSafeInteger(cpuMillis) || cpuMillis < 0 || cpuMillis > cpuMillisMax)
    throw badSpec("the number of CPUs is none", "Give between 0.001 and 4096; 0 is no limit.");
  if (
    !Number.isSafeInteger(memoryBytes) ||
    memoryBytes < 0 ||
    (memoryBytes > 0 && memoryBytes < memoryBytesMin)
  )
    throw badSpec("the memory limit is none", "Give at least 4 MiB; 0 is no limit.");
}

function checkWord(what: string, word: string): void {
  if (word.includes("\0")) throw badSpec(`${what} holds a NUL character`, "Leave the character out.");
  if (Buffer.byteLength(word) > wordBytesMax) {
    throw badSpec(
      `${what} is longer than ${wordBytesMax} bytes, which Linux does not take`,
      "Put what is large into the image, or have the program fetch it.",
    );
  }
}

function badSpec(message: string, next: string): ContainerError {
  return new ContainerError("bad_spec", message, { next });
}
