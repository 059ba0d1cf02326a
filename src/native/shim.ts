/**
 * Loads liboci_node.so, the C half of the lazy mount. The library is embedded in the executable; it is copied into a
 * memfd and loaded from there, so that it works from a compiled binary, on a read-only root and on a noexec /tmp.
 * Each binding file names its own symbols: `const { symbols } = loadShim({ oci_x: { args: ["u32"], returns: "i32" } })`.
 */
import { CString, dlopen, type FFIFunction, type Library, type Pointer } from "bun:ffi";
import { readFileSync, writeSync } from "node:fs";
import libraryPath from "../../native/out/liboci_node.so" with { type: "file" };
import { messageOf } from "../std/error.ts";
import { NativeError } from "./error.ts";

/** Must equal `oci_abi_version()` in native/src/version.c. */
const abiVersion = 4;

const mfdCloexec = 1;
let loadedPath: string | undefined;

/** A descriptor of an anonymous file with these bytes, which nobody else can write; it is the caller's to keep. */
export function inMemory(bytes: Uint8Array): number {
  const libc = dlopen("libc.so.6", { memfd_create: { args: ["cstring", "u32"], returns: "i32" } });
  const fd = libc.symbols.memfd_create(Buffer.from("oci-node\0"), mfdCloexec);
  libc.close();
  if (fd < 0) throw new NativeError("BAD_LIBRARY", "memfd_create failed", { next: "See `oci-node doctor`." });
  for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written);
  return fd;
}

/** Copies the library into an anonymous file, once per process; the descriptor stays open as long as the process. */
function openLibrary(): string {
  if (loadedPath !== undefined) return loadedPath;
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(libraryPath);
  } catch (cause) {
    throw new NativeError("BAD_LIBRARY", `the native library is missing: ${messageOf(cause)}`, {
      cause,
      next: "Build it: node native/build.mjs",
    });
  }
  const path = `/proc/self/fd/${inMemory(bytes)}`;
  const probe = dlopen(path, { oci_abi_version: { args: [], returns: "u32" } });
  if (probe.symbols.oci_abi_version() !== abiVersion) {
    throw new NativeError("BAD_LIBRARY", "the native library is of another version than this program", {
      next: "Build it again: node native/build.mjs --force",
    });
  }
  loadedPath = path;
  return path;
}

/** Binds the named symbols of the library; may be called by several files, which share the one loaded copy. */
export function loadShim<const Symbols extends Record<string, FFIFunction>>(
  symbols: Symbols,
): Library<Symbols> {
  return dlopen(openLibrary(), symbols);
}

/** Reads a NUL-terminated string that C returned and keeps. */
export function textAt(pointer: Pointer | null): string {
  return pointer === null ? "" : new CString(pointer).toString();
}

/** A NUL-terminated copy of a path for C. Throws on a NUL inside: C would see a shorter path. */
export function cText(text: string): Buffer {
  if (text.includes("\0")) throw new NativeError("EINVAL", "a path holds a NUL byte");
  return Buffer.from(`${text}\0`);
}
