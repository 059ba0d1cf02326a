/** Neighbouring spans, both ends included, that one ranged request fetches. */
export interface SpanRun {
  readonly first: number;
  readonly last: number;
}

/** What planning needs to know of a layer: where each span's compressed bytes lie. */
export interface SpanTable {
  readonly spanCount: number;
  span(index: number): { readonly compOffset: number; readonly compLength: number };
}

/** The compressed bytes of a run, end exclusive. Neighbours of a gzip layer may share a byte, so runs may overlap by one. */
export function runRange(table: SpanTable, run: SpanRun): { start: number; end: number } {
  const last = table.span(run.last);
  return { start: table.span(run.first).compOffset, end: last.compOffset + last.compLength };
}

/**
 * Grows a run around `span`: over neighbours that somebody waits for in both directions, and forward over whatever may be
 * fetched while the run has less than `spansMin` spans; never beyond `rangeBytes`.
 */
export function growRun(
  table: SpanTable,
  span: number,
  options: {
    readonly rangeBytes: number;
    readonly spansMin: number;
    /** Absent from the cache and in nobody's request. */
    fetchable(index: number): boolean;
    waitedFor(index: number): boolean;
  },
): SpanRun {
  let run: SpanRun = { first: span, last: span };
  const fits = (candidate: SpanRun) => {
    const { start, end } = runRange(table, candidate);
    return end - start <= options.rangeBytes;
  };
  while (run.last + 1 < table.spanCount) {
    const next = run.last + 1;
    const wanted = options.waitedFor(next) || next - span < options.spansMin;
    if (!wanted || !options.fetchable(next) || !fits({ ...run, last: next })) break;
    run = { ...run, last: next };
  }
  while (run.first > 0) {
    const next = run.first - 1;
    if (!options.waitedFor(next) || !options.fetchable(next) || !fits({ ...run, first: next })) break;
    run = { ...run, first: next };
  }
  return run;
}
