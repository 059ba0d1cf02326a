import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Transport } from "@connectrpc/connect";
import { transportTo } from "../rpc/transport.ts";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { CodedError } from "../std/error.ts";

export type CliErrorCode = "no_context" | "bad_context" | "usage" | "failed";

/** Something that the command line cannot do as asked; `usage` ends with exit code 2. */
export class CliError extends CodedError<CliErrorCode> {
  override readonly name = "CliError";
}

/** Where the gateway is and the token that opens it. */
export interface Context {
  readonly url: string;
  readonly token: string;
}

/** `$XDG_CONFIG_HOME/oci-node/context.json`, by default below `~/.config`. */
export function contextPath(env: Record<string, string | undefined> = process.env): string {
  return join(env["XDG_CONFIG_HOME"] || join(homedir(), ".config"), "oci-node", "context.json");
}

export async function writeContext(context: Context): Promise<string> {
  const path = contextPath();
  await writeFileAtomic(path, `${JSON.stringify(context, undefined, 2)}\n`, 0o600);
  return path;
}

/** `OCI_NODE_URL` and `OCI_NODE_TOKEN`, each over what the context file says. */
export function readContext(env: Record<string, string | undefined> = process.env): Context {
  const file = readContextFile(env);
  const url = env["OCI_NODE_URL"] || file?.url;
  const token = env["OCI_NODE_TOKEN"] || file?.token;
  if (url === undefined || token === undefined) {
    throw new CliError("no_context", `no node is known: ${contextPath(env)} is not there`, {
      next: "Start one with `oci-node dev`, or set OCI_NODE_URL and OCI_NODE_TOKEN.",
    });
  }
  return { url, token };
}

export function connectTransport(): Transport {
  return transportTo(readContext());
}

function readContextFile(env: Record<string, string | undefined>): Context | undefined {
  const path = contextPath(env);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
  try {
    const { url, token } = JSON.parse(text) as Record<string, unknown>;
    if (typeof url === "string" && typeof token === "string") return { url, token };
  } catch {
    // Told below, with the path.
  }
  throw new CliError("bad_context", `${path} is damaged`, {
    next: "Start the node again: it writes the file anew.",
  });
}
