import { dlopen } from "bun:ffi";
import { NativeError } from "./error.ts";

/** <sys/prctl.h>, <sys/resource.h>. */
const prSetDumpable = 4;
const rlimitCore = 4;

/**
 * No core file, and no ptrace(2) by other users' processes or by those of this user without CAP_SYS_PTRACE: this process's
 * memory holds credentials. To be called before anything else; children begin with the limit, but not with the rest.
 *
 * Not part of the native library, which takes longer to load than this takes (0.4 ms).
 */
export function protectMemory(): void {
  const libc = dlopen("libc.so.6", {
    prctl: { args: ["i32", "u64", "u64", "u64", "u64"], returns: "i32" },
    setrlimit: { args: ["i32", "ptr"], returns: "i32" },
  });
  const none = new BigUint64Array(2);
  const failed =
    libc.symbols.prctl(prSetDumpable, 0n, 0n, 0n, 0n) !== 0 || libc.symbols.setrlimit(rlimitCore, none) !== 0;
  libc.close();
  if (failed) throw new NativeError("EPERM", "memory could not be protected");
}
