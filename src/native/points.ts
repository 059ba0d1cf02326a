import { type Pointer, ptr } from "bun:ffi";
import { NativeError } from "./error.ts";
import { loadShim, textAt } from "./shim.ts";

/*
 * The indexer's decompressor (native/src/points.c): gzip and zstd, step by step, stopping where a reader may begin.
 * Calls run on the calling thread, for about as long as it takes to inflate one output buffer.
 */
const { symbols } = loadShim({
  oci_points_open: { args: ["i32"], returns: "ptr" },
  oci_points_close: { args: ["ptr"], returns: "void" },
  oci_points_step: { args: ["ptr", "ptr", "u64", "ptr", "u64", "i32", "ptr"], returns: "void" },
  oci_points_window: { args: ["ptr", "ptr", "u64", "ptr"], returns: "i32" },
  oci_points_problem: { args: ["ptr"], returns: "ptr" },
  oci_points_limit_memory: { args: ["u64"], returns: "i32" },
});

/** `enum oci_points_status`. */
const statuses = {
  0: "input",
  1: "output",
  2: "block",
  3: "memberEnd",
  4: "trailing",
  [-1]: "badData",
  [-2]: "noMemory",
  [-3]: "windowTooLarge",
} as const;

/**
 * Why a step ended: `input` wants more of it, `output` is full, `block` a deflate block ended (only when asked for),
 * `memberEnd` a gzip member or zstd frame ended and its checksum fits, `trailing` what follows is no gzip member; the
 * last three are failures.
 */
export type PointStatus = (typeof statuses)[keyof typeof statuses];

const windowBytesMax = 40 * 1024;

/** Decompresses one layer. Close it, or its C memory (up to 128 MiB for zstd) stays. */
export class PointScanner {
  #handle: Pointer | null;
  readonly #result = new DataView(new ArrayBuffer(32));
  readonly #resultPointer = ptr(this.#result);
  readonly #windowBytes = new Uint8Array(windowBytesMax);
  readonly #outputPointer: Pointer;
  readonly #output: Uint8Array;
  /** Of the last step: bytes taken from the input and written to the output. */
  consumed = 0;
  produced = 0;
  /** After `block`: how many high bits of the last consumed byte belong to the next block (0 … 7). */
  unusedBits = 0;

  private constructor(handle: Pointer, output: Uint8Array) {
    this.#handle = handle;
    this.#output = output;
    this.#outputPointer = ptr(output);
  }

  /** Steps write to the start of `output`, which must stay as long as this object. */
  static open(kind: "gzip" | "zstd", output: Uint8Array): PointScanner {
    const handle = symbols.oci_points_open(kind === "gzip" ? 1 : 2);
    if (handle === null) throw new NativeError("ENOMEM", `no memory to inflate ${kind}`);
    return new PointScanner(handle as Pointer, output);
  }

  /** Inflates from `input` (read before the call returns) until something happens. */
  step(input: Uint8Array, outputBytesMax: number, stopAtBlock: boolean): PointStatus {
    symbols.oci_points_step(
      this.#open(),
      input.length === 0 ? this.#resultPointer : ptr(input),
      input.length,
      this.#outputPointer,
      Math.min(outputBytesMax, this.#output.length),
      stopAtBlock ? 1 : 0,
      this.#resultPointer,
    );
    this.consumed = Number(this.#result.getBigUint64(0, true));
    this.produced = Number(this.#result.getBigUint64(8, true));
    this.unusedBits = this.#result.getInt32(20, true);
    return statuses[this.#result.getInt32(16, true) as keyof typeof statuses];
  }

  /**
   * After `block`: what a reader that begins here must know of the output before (up to 32 KiB), as raw deflate, valid
   * until the next call. Empty when nothing was put out since the member began.
   */
  window(): { stored: Uint8Array; inflatedBytes: number } {
    const length = symbols.oci_points_window(
      this.#open(),
      ptr(this.#windowBytes),
      windowBytesMax,
      this.#resultPointer,
    );
    if (length < 0) throw new NativeError("EINVAL", "the inflate window could not be taken");
    return { stored: this.#windowBytes.subarray(0, length), inflatedBytes: this.#result.getUint32(0, true) };
  }

  /** After `badData`: what inflate or zstd said. */
  problem(): string {
    return textAt(symbols.oci_points_problem(this.#open()) as Pointer | null);
  }

  close(): void {
    if (this.#handle !== null) symbols.oci_points_close(this.#handle);
    this.#handle = null;
  }

  #open(): Pointer {
    if (this.#handle === null) throw new NativeError("EBADF", "the scanner is closed");
    return this.#handle;
  }
}

/** Bounds the writable private memory of this process (RLIMIT_DATA); never undone. Returns 0 or an errno. */
export function limitOwnMemory(bytes: number): number {
  return symbols.oci_points_limit_memory(BigInt(bytes));
}
