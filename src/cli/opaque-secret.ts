import { readFile } from "node:fs/promises";
import { stdin } from "node:process";
import type { Secret } from "../gen/oci_node/v1/secret_service_pb.ts";
import { errnoOf } from "../std/error.ts";
import { CliError } from "./context.ts";
import { note, printJson, printLine } from "./output.ts";
import { secretShape } from "./shape.ts";

/** Bytes of a value; the gateway refuses more as well. */
const valueBytesMax = 64 * 1024;

export interface OpaqueFlags {
  readonly fromFile?: string | undefined;
}

export const opaqueFlags = {
  fromFile: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "File with the value of an opaque secret; by default standard input",
    placeholder: "FILE",
  },
} as const;

/**
 * The value of an opaque secret, byte for byte.
 * @throws CliError for a file that cannot be read, and for what is too long
 */
export async function readOpaqueValue({ fromFile = "-" }: OpaqueFlags): Promise<Uint8Array> {
  if (fromFile === "-" && stdin.isTTY === true) note("The value, then Ctrl-D:");
  const value = fromFile === "-" ? await readStandardInput() : await readValueFile(fromFile);
  if (value.length > valueBytesMax)
    throw new CliError("usage", `the value is longer than ${valueBytesMax} bytes`, {
      next: "Put what is larger into a volume, or into the image if it is no secret.",
    });
  if (value.at(-1) === 0x0a)
    note("note: the value ends with a newline, which is kept; printf '%s' VALUE writes none");
  return value;
}

/** Shows what was kept, as other secrets are. */
export function showOpaque(secret: Secret, json: boolean): void {
  if (json) printJson(secretShape(secret));
  else printLine(secret.name);
}

async function readStandardInput(): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of stdin) {
    pieces.push(piece as Buffer);
    bytes += (piece as Buffer).length;
    if (bytes > valueBytesMax) break;
  }
  return Buffer.concat(pieces);
}

async function readValueFile(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new CliError("usage", `--from-file ${path} cannot be read: ${errnoOf(error) ?? "failed"}`);
  }
}
