import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { CodedError } from "./error.ts";

export type PrivateFileErrorCode = "loose_mode";

/** A file with a secret in it that others than its owner can read or write; the message names it, and `next` the chmod. */
export class PrivateFileError extends CodedError<PrivateFileErrorCode> {
  override readonly name = "PrivateFileError";
}

export interface PrivateFileRule {
  /** What is in it: `the administrator's token`. */
  readonly holds: string;
  /** For files that other programs made for us, such as `root:ssl-cert`, mode 0640. */
  readonly groupMayRead?: boolean;
}

/**
 * The text of a file that holds a secret. What is no regular file, such as the pipe of a shell's `<(…)`, has nobody else
 * reading it. The file is looked at once it is open: what is judged is what is read.
 *
 * @throws PrivateFileError, or the platform's error where it cannot be opened
 */
export function readPrivateFile(path: string, { holds, groupMayRead = false }: PrivateFileRule): string {
  const fd = openSync(path, "r");
  try {
    const status = fstatSync(fd);
    const loose = status.mode & (groupMayRead ? 0o026 : 0o066);
    if (!status.isFile() || loose === 0) return readFileSync(fd, "utf8");
    const what = (loose & 0o044) === 0 ? "write" : "read";
    const wanted = groupMayRead ? "g-w,o-rw" : "600";
    throw new PrivateFileError("loose_mode", `${path} holds ${holds}, and others can ${what} it`, {
      next: `Run: chmod ${wanted} ${path}`,
    });
  } finally {
    closeSync(fd);
  }
}
