import type { Seen } from "./quirk-net.ts";
import type { Row } from "./quirk-row.ts";
import type { QuirkWorld, Reader } from "./quirk-world.ts";

interface Begun {
  readonly reader: Reader;
  /** How many tokens the row had given out by then. */
  readonly issued: number;
}

export interface ReadOn {
  /** What was asked of anybody for it. */
  readonly after: readonly Seen[];
  /** How many tokens or passwords the row's innermost issuer had to make since the beginning. */
  readonly made: number;
}

/** What is younger than this was not refused for its age, says the product, whatever the clock of a registry says. */
export const youngMs = 5_100;

/** A container for each of several rows, which all have read their first file and wait to read the second. */
export class Readers<Name extends string> {
  readonly #world: QuirkWorld;
  readonly #rows: Readonly<Record<Name, Row>>;
  readonly #begun = new Map<Name, Begun | Error>();

  constructor(world: QuirkWorld, rows: Readonly<Record<Name, Row>>) {
    this.#world = world;
    this.#rows = rows;
  }

  get names(): readonly Name[] {
    return Object.keys(this.#rows) as Name[];
  }

  /** Builds and starts them all. When it returns, what was issued for them is old enough to be over. */
  async begin(firstSeed: number): Promise<void> {
    for (const [index, name] of this.names.entries()) {
      this.#begun.set(name, await this.#beginOne(name, firstSeed + 10 * index));
    }
    await Bun.sleep(youngMs);
  }

  /** Lets one read on, to its end. @throws what its beginning threw, or when it does not read what is there */
  async readOn(name: Name): Promise<ReadOn> {
    const begun = this.#begun.get(name);
    if (begun === undefined || begun instanceof Error) throw begun;
    const { net } = this.#world;
    const from = net.seen.length;
    const { exitCode } = await this.#world.readOn(begun.reader);
    const row = this.#rows[name];
    const bad = row.blobs?.refusals.filter((reason) => reason !== "expired") ?? [];
    if (exitCode !== 0 || bad.length > 0) throw new Error(`${name} ended with ${exitCode}; refused: ${bad}`);
    return { after: net.seen.slice(from), made: row.issued() - begun.issued };
  }

  async #beginOne(name: Name, seed: number): Promise<Begun | Error> {
    try {
      const reader = await this.#world.read(this.#rows[name], seed);
      return { reader, issued: this.#rows[name].issued() };
    } catch (error) {
      return error as Error;
    }
  }
}
