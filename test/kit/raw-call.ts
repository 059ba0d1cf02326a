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

/** Calls `SecretService/GetSecret` with a body: a value, or text or bytes as they are. */
export type RawCall = (
  method: string,
  body: unknown,
  options?: { readonly streams?: boolean },
) => Promise<RawAnswer>;

/** The tokens of a node's context file. */
export async function contextOf(node: TestNode): Promise<{ token: string; admin_token?: string }> {
  return JSON.parse(await readFile(join(node.home, "config/oci-node/context.json"), "utf8"));
}

/** Calls a node as curl does: JSON over HTTP/1.1, with the workspace's token of its context file unless another is given. */
export async function rawCaller(node: TestNode, token?: string): Promise<RawCall> {
  const bearer = token ?? (await contextOf(node)).token;
  return async (method, body, { streams = false } = {}) => {
    const bytes = Buffer.from(
      body instanceof Uint8Array ? body : typeof body === "string" ? body : JSON.stringify(body),
    );
    const response = await fetch(`${node.url}/oci_node.v1.${method}`, {
      method: "POST",
      headers: {
        "content-type": streams ? "application/connect+json" : "application/json",
        authorization: `Bearer ${bearer}`,
      },
      body: streams ? enveloped(bytes) : bytes,
    });
    const text = await response.text();
    return { status: response.status, text, ...errorOf(streams ? lastMessage(text) : text) };
  };
}

/** A message of a stream: flags, length, content (Connect protocol, "Streaming RPCs"). */
function enveloped(bytes: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/** The end of a stream is an object with an error in it, or without. */
function lastMessage(text: string): string {
  const at = text.lastIndexOf('{"error":');
  return at < 0 ? "{}" : JSON.stringify((JSON.parse(text.slice(at)) as { error: unknown }).error);
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
