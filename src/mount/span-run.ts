import { spanBytes } from "../index/types.ts";

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

/** The same with what each span inflates to. */
export interface SizedSpanTable extends SpanTable {
  span(
    index: number,
  ): ReturnType<SpanTable["span"]> & { readonly tarOffset: number; readonly tarLength: number };
}

/**
 * The compressed bytes of an ordinary span, which are cheaper than another request. The spans of layers with a table of their own
 * are single files and parts of them, thousands of them tiny: as many count as one as make this much, or
 * {@link spanBytes} when they are inflated.
 */
const ordinaryBytes = 512 * 1024;

/** The compressed bytes of a run, end exclusive. Neighbours of a gzip layer may share a byte, so runs may overlap by one. */
export function runRange(table: SpanTable, run: SpanRun): { start: number; end: number } {
  const last = table.span(run.last);
  return { start: table.span(run.first).compOffset, end: last.compOffset + last.compLength };
}

/**
 * Grows a run around `span`: over neighbours that somebody waits for in both directions, and forward over whatever may be
 * fetched while the run has less than `spansMin` spans of ordinary size; never beyond `rangeBytes`. What is missing of one
 * ordinary span after that is taken from before `span`: files are not read in the layer's order, and may be in the opposite one.
 */
export function growRun(
  table: SizedSpanTable,
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
  const from = table.span(span);
  const isShort = (last: number) => {
    const { compOffset, compLength, tarOffset, tarLength } = table.span(last);
    return (
      compOffset + compLength - from.compOffset < options.spansMin * ordinaryBytes &&
      tarOffset + tarLength - from.tarOffset < options.spansMin * spanBytes
    );
  };
  while (run.last + 1 < table.spanCount) {
    const next = run.last + 1;
    const wanted = options.waitedFor(next) || next - span < options.spansMin || isShort(run.last);
    if (!wanted || !options.fetchable(next) || !fits({ ...run, last: next })) break;
    run = { ...run, last: next };
  }
  while (run.first > 0) {
    const next = run.first - 1;
    const wanted = options.waitedFor(next) || isWithinOrdinary(table, { ...run, first: next });
    if (!wanted || !options.fetchable(next) || !fits({ ...run, first: next })) break;
    run = { ...run, first: next };
  }
  return run;
}

function isWithinOrdinary(table: SizedSpanTable, run: SpanRun): boolean {
  const first = table.span(run.first);
  const last = table.span(run.last);
  return (
    last.compOffset + last.compLength - first.compOffset <= ordinaryBytes &&
    last.tarOffset + last.tarLength - first.tarOffset <= spanBytes
  );
}
