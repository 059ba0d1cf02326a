import type { LogChunk } from "../spec.ts";

const space = 0x20;
const newline = 0x0a;
const lineSizeMaxBytes = 1024 * 1024;
const empty = new Uint8Array(0);

interface Line {
  readonly time: string;
  readonly stream: "stdout" | "stderr";
  /** With its newline if the line is whole. */
  readonly data: Uint8Array;
}

/**
 * Parses the log format of Kubernetes' container runtime interface, as conmon writes it: `TIME STREAM TAG DATA`, a line
 * of the file for each line of output; tag `F` ends a line of output, after `P` it goes on. The data are the program's
 * bytes. Lines that were read at once have the same time: they come out as one chunk.
 */
export class LogParser {
  #rest: Uint8Array = empty;

  push(bytes: Uint8Array): LogChunk[] {
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const lines: Line[] = [];
    let start = 0;
    for (let end = all.indexOf(newline); end !== -1; end = all.indexOf(newline, start)) {
      const line = parseLine(all, start, end);
      if (line !== undefined) lines.push(line);
      start = end + 1;
    }
    this.#rest = all.length - start > lineSizeMaxBytes ? empty : all.slice(start);
    return join(lines);
  }
}

function parseLine(bytes: Uint8Array, start: number, end: number): Line | undefined {
  const afterTime = bytes.indexOf(space, start);
  const afterStream = bytes.indexOf(space, afterTime + 1);
  if (afterTime === -1 || afterStream === -1 || afterStream + 3 > end) return undefined;
  const stream = Buffer.from(bytes.subarray(afterTime + 1, afterStream)).toString("latin1");
  if (stream !== "stdout" && stream !== "stderr") return undefined;
  const whole = bytes[afterStream + 1] === 0x46;
  return {
    time: Buffer.from(bytes.subarray(start, afterTime)).toString("latin1"),
    stream,
    data: bytes.slice(afterStream + 3, whole ? end + 1 : end),
  };
}

function join(lines: readonly Line[]): LogChunk[] {
  const chunks: LogChunk[] = [];
  for (let start = 0; start < lines.length; ) {
    const first = lines[start]!;
    let end = start + 1;
    while (end < lines.length && lines[end]!.time === first.time && lines[end]!.stream === first.stream)
      end += 1;
    const data =
      end === start + 1 ? first.data : Buffer.concat(lines.slice(start, end).map((line) => line.data));
    chunks.push({ stream: first.stream, time: new Date(first.time), data });
    start = end;
  }
  return chunks;
}
