/** The process that keeps FUSE connections open while their server is away; see native/src/holder/protocol.h. */
import { readFileSync } from "node:fs";
import programPath from "../../native/out/oci-node-holder.elf" with { type: "file" };
import { checked, errnoName, runJob } from "./doorbell.ts";
import { cText, loadShim } from "./shim.ts";

const { symbols } = loadShim({
  oci_holder_open: { args: ["buffer", "buffer", "u64", "u32", "u32"], returns: "i32" },
  oci_holder_pid: { args: ["u32"], returns: "i32" },
  oci_holder_drop: { args: ["u32", "buffer", "u32"], returns: "i32" },
  oci_holder_list: { args: ["u32", "u32", "buffer", "u32"], returns: "i32" },
  oci_holder_bye: { args: ["u32", "u32"], returns: "i32" },
});

/** Length of a key: text, one byte per character. */
export const holderKeyLength = 32;
const keysPerList = 64;

export interface HolderOptions {
  /** A folder of the worker's own; there is one holder per folder. */
  readonly folder: string;
  /** For how long it holds what it has while no worker is connected. */
  readonly patienceMs: number;
}

/** A connection to the holder of a folder. It lasts until {@link bye}, or as long as this process serves. */
export class HolderConnection {
  readonly id: number;
  /** The holder's process. */
  readonly pid: number;

  private constructor(id: number) {
    this.id = id;
    this.pid = checked(symbols.oci_holder_pid(id), "the holder's process");
  }

  /** Connects; `undefined` when there is no holder. Waits for a while for a process that is connected to end. */
  static async connect(options: HolderOptions): Promise<HolderConnection | undefined> {
    const result = await open(options, new Uint8Array(1), 0);
    if (result < 0 && errnoName(result) === "ENOENT") return undefined;
    return new HolderConnection(checked(result, `the holder of ${options.folder} does not answer`));
  }

  /** Connects, after starting a holder where there is none. */
  static async start(options: HolderOptions): Promise<HolderConnection> {
    const program = readFileSync(programPath);
    const result = await open(options, program, program.length);
    return new HolderConnection(checked(result, `the holder of ${options.folder} could not be started`));
  }

  /** What is held. Throws `ENOTCONN`, as the others do, when the holder has ended. */
  async list(): Promise<string[]> {
    const keys: string[] = [];
    for (;;) {
      const page = Buffer.alloc(keysPerList * holderKeyLength);
      const total = checked(
        await runJob((job) => symbols.oci_holder_list(this.id, keys.length, page, job), page),
        "the holder's list",
      );
      const count = Math.min(keysPerList, total - keys.length);
      for (let at = 0; at < count; at += 1)
        keys.push(page.toString("latin1", at * holderKeyLength, (at + 1) * holderKeyLength));
      if (keys.length >= total) return keys;
    }
  }

  /** Closes what is held under the key; nothing is no error. */
  async drop(key: string): Promise<void> {
    const result = await runJob((job) => symbols.oci_holder_drop(this.id, cText(key), job));
    if (result < 0 && errnoName(result) !== "ENOENT") checked(result, `the holder keeps ${key}`);
  }

  /** Ends the connection, and the holder when it holds nothing: it is gone when this resolves. */
  async bye(): Promise<void> {
    const result = await runJob((job) => symbols.oci_holder_bye(this.id, job));
    if (result < 0 && errnoName(result) !== "EBUSY") checked(result, "the holder");
  }
}

function open(options: HolderOptions, program: Uint8Array, length: number): Promise<number> {
  const { folder, patienceMs } = options;
  return runJob((job) =>
    symbols.oci_holder_open(cText(folder), program, BigInt(length), Math.max(1, patienceMs), job),
  );
}
