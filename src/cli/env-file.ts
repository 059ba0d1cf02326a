import { readFileSync } from "node:fs";
import { errnoOf, messageOf } from "../std/error.ts";
import { CliError } from "./context.ts";

const fileBytesMax = 1024 * 1024;

/**
 * Variables of a file as `docker run --env-file` takes it: `NAME=value` to the end of the line, without quoting; `NAME` alone
 * is the caller's, if he has it; lines that begin with `#` are comments.
 *
 * @throws CliError `usage`, which names the file and the line but shows nothing of it: it may be a value
 */
export function readEnvFile(path: string, caller: NodeJS.ProcessEnv = process.env): Record<string, string> {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new CliError("usage", `${path}: cannot be read (${errnoOf(error) ?? messageOf(error)})`, {
      next: "Give --env-file a file with a NAME=value on each line.",
    });
  }
  if (bytes.length > fileBytesMax)
    throw new CliError("usage", `${path} has more than ${fileBytesMax} bytes`, {
      next: "Split it, or shorten it.",
    });
  return parseEnvFile(bytes, path, caller);
}

/** @param path how messages call it */
export function parseEnvFile(
  bytes: Uint8Array,
  path: string,
  caller: NodeJS.ProcessEnv,
): Record<string, string> {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new CliError("usage", `${path} is no UTF-8 text`, { next: "Save it as UTF-8." });
  }
  const variables: Record<string, string> = {};
  for (const [at, line] of text.split(/\r?\n/).entries()) {
    const trimmed = line.trimStart();
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    const equals = trimmed.indexOf("=");
    const name = equals < 0 ? trimmed : trimmed.slice(0, equals);
    if (name === "" || /[\s\0]/.test(name) || trimmed.includes("\0")) {
      throw new CliError("usage", `line ${at + 1} of ${path} is no NAME=value`, {
        next: "A name has no spaces, and a value stands on one line; comments begin with #.",
      });
    }
    const value = equals < 0 ? caller[name] : trimmed.slice(equals + 1);
    if (value !== undefined) variables[name] = value;
  }
  return variables;
}
