/** Tells what happens: a line per step with its time, right when it is done. */
export class Steps {
  #number = 0;

  /** Does one step and prints its line: what `action` gives, or `what`. */
  async step<T>(
    what: string,
    action: () => Promise<T>,
    told: (result: T) => string = () => what,
  ): Promise<T> {
    const started = performance.now();
    const number = String(++this.#number).padStart(2);
    try {
      const result = await action();
      line(`${number}. ${seconds(performance.now() - started)}  ${told(result)}`);
      return result;
    } catch (error) {
      line(`${number}. ${seconds(performance.now() - started)}  FAILED: ${what}`);
      throw error;
    }
  }

  /** Something that belongs to the step before it. */
  detail(text: string): void {
    for (const part of text.split("\n")) line(`               ${part}`);
  }
}

export function seconds(elapsedMs: number): string {
  return `${(elapsedMs / 1000).toFixed(2).padStart(6)} s`;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function line(text: string): void {
  process.stdout.write(`${text}\n`);
}
