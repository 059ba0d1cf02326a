import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestNode } from "./node.ts";

export interface RawAnswer {
  readonly status: number;
  readonly text: string;
  /** Of an error: Connect's code and message, and what an error of ours says beside it. */
  readonly code: string | undefined;
  readonly message: string;
  readonly next: string | undefined;
}

/** Who calls what, and with which body: a value, or the bytes as they are. */
export type RawCall = (method: string, body: unknown) => Promise<RawAnswer>;

/** Calls a node as curl does: JSON over HTTP/1.1, with the token of its context file. `SecretService/GetSecret`. */
export async function rawCaller(node: TestNode): Promise<RawCall> {
  const context = await readFile(join(node.home, "config/oci-node/context.json"), "utf8");
  const { token } = JSON.parse(context) as { token: string };
  return async (method, body) => {
    const response = await fetch(`${node.url}/oci_node.v1.${method}`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body),
    });
    const text = await response.text();
    return { status: response.status, text, ...errorOf(text) };
  };
}

function errorOf(text: string): Pick<RawAnswer, "code" | "message" | "next"> {
  try {
    const { code, message, details } = JSON.parse(text) as {
      code?: string;
      message?: string;
      details?: { debug?: { next?: string } }[];
    };
    return { code, message: message ?? "", next: details?.[0]?.debug?.next };
  } catch {
    return { code: undefined, message: text, next: undefined };
  }
}
