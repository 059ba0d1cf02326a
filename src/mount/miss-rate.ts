const windowMs = 2_000;
/** With so many misses in a row of two seconds, so many spans behind a missed one come with it. */
const steps = [
  { misses: 8, spans: 6 },
  { misses: 4, spans: 2 },
] as const;
/** A layer of more spans is read in one place and another: nothing is presumed of it but where something was read before. */
const spansOfAWhole = 256;
const nearby = 8;

/**
 * A program that starts jumps about in its image, but mostly forward and close to where it has been: with the bytes of the
 * next spans on their way it waits for half as many round trips. A reader that misses now and then, or on a slow link,
 * is given what it asks for.
 */
export class MissRate {
  readonly #times: number[] = [];

  /** A reader missed: how many spans behind the missed one to fetch with it. */
  missed(layer: LayerReads, span: number, now = performance.now()): number {
    this.#times.push(now);
    while ((this.#times[0] ?? now) < now - windowMs || this.#times.length > steps[0].misses)
      this.#times.shift();
    const ahead = steps.find(({ misses }) => this.#times.length >= misses)?.spans ?? 0;
    return ahead === 0 || layer.spanCount <= spansOfAWhole || isKnown(layer, span) ? ahead : 0;
  }
}

/** What is known of a layer's reads. */
export interface LayerReads {
  readonly spanCount: number;
  /** Whether a span is there, or on its way. */
  has(span: number): boolean;
}

function isKnown(layer: LayerReads, span: number): boolean {
  for (let distance = 1; distance <= nearby; distance += 1) {
    if (span - distance >= 0 && layer.has(span - distance)) return true;
    if (span + distance < layer.spanCount && layer.has(span + distance)) return true;
  }
  return false;
}
