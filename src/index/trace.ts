import { z } from "zod";
import { isDigest } from "../reference/digest.ts";

/**
 * A stretch of a layer's tar stream that starts of a program read. Named by its place in the layer, not by a span's
 * number: another index of the layer may cut it elsewhere.
 */
export interface TracedRange {
  /** The layer's digest. */
  readonly layer: string;
  readonly tarOffset: number;
  readonly tarLength: number;
  /** What fetching it cost when it was recorded. */
  readonly compressedBytes: number;
}

/** What one start read, first read first. */
export interface StartTrace {
  readonly ranges: readonly TracedRange[];
  /** The layers whose reads could be seen: a layer that was complete is read past everybody who could take note. */
  readonly seenLayers: readonly string[];
}

/** What the latest starts of a program read. A hint of what to fetch and in which order; nothing is believed of it. */
export interface Trace {
  /** The command's first word, for people who look; the rest may hold secrets. */
  readonly program: string;
  /** Starts that went into it. */
  readonly starts: number;
  readonly updatedAt: Date;
  /** In the order of the latest start that read them; those that it did not read come last. */
  readonly ranges: readonly (TracedRange & { readonly missedStarts: number })[];
}

export const traceLimits = {
  ranges: 4096,
  compressedBytes: 1024 * 1024 * 1024,
  /** A range that so many starts in a row did not read is dropped: a trace must not only grow. */
  missedStarts: 3,
  fileBytes: 1024 * 1024,
} as const;

const programCharsMax = 64;

/** The trace after one more start. What a start could not have shown (see {@link StartTrace.seenLayers}) stays. */
export function mergeTrace(
  before: Trace | undefined,
  start: StartTrace,
  program: string,
  updatedAt: Date,
): Trace {
  const seen = new Set(start.seenLayers);
  const read = new Set(start.ranges.map(nameOf));
  const fresh = start.ranges.map((range) => ({ ...range, missedStarts: 0 }));
  const kept = (before?.ranges ?? [])
    .filter((range) => !read.has(nameOf(range)))
    .map((range) => (seen.has(range.layer) ? { ...range, missedStarts: range.missedStarts + 1 } : range))
    .filter(({ missedStarts }) => missedStarts < traceLimits.missedStarts);
  // What nobody could see in this start may have been read at any moment of it: it stays in front of what was not read.
  const ranges = [
    ...fresh,
    ...kept.filter(({ layer }) => !seen.has(layer)),
    ...kept.filter(({ layer }) => seen.has(layer)),
  ];
  return {
    program: program.slice(0, programCharsMax),
    starts: (before?.starts ?? 0) + 1,
    updatedAt,
    ranges: withinLimits(ranges),
  };
}

function withinLimits<Range extends TracedRange>(ranges: readonly Range[]): Range[] {
  let bytes = 0;
  return ranges.slice(0, traceLimits.ranges).filter(({ compressedBytes }) => {
    bytes += compressedBytes;
    return bytes <= traceLimits.compressedBytes;
  });
}

function nameOf({ layer, tarOffset, tarLength }: TracedRange): string {
  return `${layer} ${tarOffset} ${tarLength}`;
}

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const fileSchema = z.strictObject({
  version: z.literal(1),
  program: z.string().max(programCharsMax),
  starts: count,
  updatedAt: z.iso.datetime(),
  layers: z.array(z.string().refine(isDigest)).max(traceLimits.ranges),
  /** Number of the layer, tar offset, tar length, compressed bytes, missed starts. */
  ranges: z.array(z.tuple([count, count, count, count, count])).max(traceLimits.ranges),
});

/** The text that {@link decodeTrace} reads. */
export function encodeTrace(trace: Trace): string {
  const layers = [...new Set(trace.ranges.map(({ layer }) => layer))];
  const numbers = new Map(layers.map((layer, number) => [layer, number]));
  return JSON.stringify({
    version: 1,
    program: trace.program,
    starts: trace.starts,
    updatedAt: trace.updatedAt.toISOString(),
    layers,
    ranges: trace.ranges.map((range) => [
      numbers.get(range.layer),
      range.tarOffset,
      range.tarLength,
      range.compressedBytes,
      range.missedStarts,
    ]),
  } satisfies Record<keyof z.infer<typeof fileSchema>, unknown>);
}

/** The trace of a text; `undefined` when it is none, or beyond {@link traceLimits}: a hint that is lost costs time only. */
export function decodeTrace(text: string): Trace | undefined {
  const file = parse(text);
  if (file === undefined) return undefined;
  const ranges: Trace["ranges"][number][] = [];
  for (const [number, tarOffset, tarLength, compressedBytes, missedStarts] of file.ranges) {
    const layer = file.layers[number];
    if (layer === undefined) return undefined;
    ranges.push({ layer, tarOffset, tarLength, compressedBytes, missedStarts });
  }
  const { program, starts, updatedAt } = file;
  return { program, starts, updatedAt: new Date(updatedAt), ranges: withinLimits(ranges) };
}

function parse(text: string): z.infer<typeof fileSchema> | undefined {
  try {
    const parsed = fileSchema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}
