import { join } from "node:path";
import { HandlerCode } from "./handler-code.ts";

/** Of a worker in a test whose containers have no code. */
export function noCode(directory: string): Promise<HandlerCode> {
  return HandlerCode.open({
    dir: join(directory, "code"),
    quotaBytes: 0,
    unpackedBytesMax: 0,
    runner: { files: {}, path: "/runner" },
    fetchPiece: () => Promise.reject(new Error("no container has code here")),
  });
}
