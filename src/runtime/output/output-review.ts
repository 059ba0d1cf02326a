import type { Runtime } from "../runtime.ts";

const everyBeats = 12;
const idsMax = 500;

/**
 * Which output is to be asked about: that of containers which ended, now and then, some at a time. Whoever removed one while
 * this worker was away, or with its whole workspace, told nobody here.
 */
export class OutputReview {
  readonly #runtime: Pick<Runtime, "logged" | "removeLog">;
  readonly #isHeld: (id: string) => boolean;
  #beats = 0;
  /** The last that was asked about. */
  #last = "";

  constructor(runtime: Pick<Runtime, "logged" | "removeLog">, isHeld: (id: string) => boolean) {
    this.#runtime = runtime;
    this.#isHeld = isHeld;
  }

  /** For one heartbeat: mostly none. */
  async next(): Promise<readonly string[]> {
    this.#beats += 1;
    if (this.#beats % everyBeats !== 1) return [];
    // No beat fails for it.
    const logged = await this.#runtime.logged().catch(() => []);
    const ids = logged.filter((id) => !this.#isHeld(id)).sort();
    const rest = ids.filter((id) => id > this.#last).slice(0, idsMax);
    const asked = rest.length > 0 ? rest : ids.slice(0, idsMax);
    this.#last = asked.at(-1) ?? "";
    return asked;
  }

  /** Removes what nobody knows, as far as it was asked about and is not held by now. */
  async remove(ids: readonly string[]): Promise<void> {
    for (const id of ids) if (!this.#isHeld(id)) await this.#runtime.removeLog(id);
  }
}
