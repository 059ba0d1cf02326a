import { loadShim } from "./shim.ts";

const { symbols } = loadShim({ oci_crc32c: { args: ["buffer", "u64", "bool"], returns: "i64" } });

/** CRC32C as the library computes it; -1 when this processor lacks what the code that was asked for needs. */
export function crc32c(bytes: Uint8Array, portable = true): number {
  return Number(symbols.oci_crc32c(bytes.length === 0 ? new Uint8Array(1) : bytes, bytes.length, portable));
}
