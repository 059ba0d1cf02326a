import type { SeededRandom } from "../../src/index/tar.test-kit.ts";

/**
 * Something that takes bytes from strangers. An input is made from a random sequence alone, so that a seed and a number
 * give it again; `run` throws when a promise is broken.
 */
export interface Target {
  /** As `--only` and the folder of its findings have it. */
  readonly name: string;
  /** What is made before the first input, in a folder of its own. The same at each call. */
  readonly prepare?: (folder: string) => Promise<void>;
  readonly make: (random: SeededRandom) => Uint8Array;
  /** @param random the sequence goes on where `make` left it @param folder empty, for files of this input */
  readonly run: (input: Uint8Array, random: SeededRandom, folder: string) => void | Promise<void>;
}

/** A promise that an input broke. */
export class Finding extends Error {
  override readonly name = "Finding";
}

/** @throws Finding unless `holds` */
export function promise(holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new Finding(what());
}

/** What `action` threw, or `undefined`; anything but an error of the class, with one of its codes, is a finding. */
export async function refused<T extends Error & { readonly code: string }>(
  errorClass: abstract new (...args: never[]) => T,
  action: () => unknown,
): Promise<T | undefined> {
  try {
    await action();
    return undefined;
  } catch (error) {
    if (error instanceof errorClass) return error;
    if (error instanceof Finding) throw error;
    throw new Finding(`it threw ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
}
