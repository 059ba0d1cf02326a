import { connect } from "node:http2";
import { join } from "node:path";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { GenFile } from "@bufbuild/protobuf/codegenv2";

const folder = join(import.meta.dir, "../../src/gen/oci_node/v1");

/** Every service of the API, as it is generated. */
export async function allServices(): Promise<DescService[]> {
  const services: DescService[] = [];
  for (const name of new Bun.Glob("*_pb.ts").scanSync({ cwd: folder })) {
    const exported = (await import(join(folder, name))) as Record<string, unknown>;
    const file = Object.entries(exported).find(([key]) => key.startsWith("file_"))?.[1] as GenFile;
    services.push(...file.services);
  }
  return services.sort((a, b) => (a.typeName < b.typeName ? -1 : 1));
}

export interface CallOutcome {
  /** `ok`, or the error's Connect code in lower case: `not_found`. */
  readonly code: string;
  /** What came: the messages as JSON, or what the error says, with its details. */
  readonly text: string;
}

const callTimeoutMs = 60_000;
/** Streams that go on for as long as what they are about; of them the first message is looked at. */
const endless = new Set(["WatchEndpoint"]);

/** Makes a call over the wire as JSON, whatever its method, and gives what came of it. */
export async function callMethod(
  url: string,
  token: string | undefined,
  method: DescMethod,
  request: object,
): Promise<CallOutcome> {
  if (method.methodKind === "bidi_streaming") return await callBothWays(url, token, method, request);
  const path = `${url}/${method.parent.typeName}/${method.name}`;
  const streams = method.methodKind !== "unary";
  const json = JSON.stringify(request);
  const response = await fetch(path, {
    method: "POST",
    headers: {
      "content-type": streams ? "application/connect+json" : "application/json",
      "connect-protocol-version": "1",
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body: streams ? enveloped(json) : json,
    // The cluster's own authority is nobody's to this client.
    tls: { rejectUnauthorized: false },
    signal: AbortSignal.timeout(callTimeoutMs),
  });
  if (!streams || !response.ok) return ofUnary(response.ok, await response.text());
  return ofStream(endless.has(method.name) ? await firstOf(response) : await response.bytes());
}

/** A call where both talk at once goes over HTTP/2 alone; here the one message is all that is said. */
async function callBothWays(
  url: string,
  token: string | undefined,
  method: DescMethod,
  request: object,
): Promise<CallOutcome> {
  const session = connect(url, { rejectUnauthorized: false });
  try {
    return await new Promise((resolve, reject) => {
      session.on("error", reject);
      const stream = session.request({
        ":method": "POST",
        ":path": `/${method.parent.typeName}/${method.name}`,
        "content-type": "application/connect+json",
        "connect-protocol-version": "1",
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      });
      const parts: Buffer[] = [];
      stream.on("data", (part: Buffer) => parts.push(part));
      stream.on("end", () => resolve(ofStream(Buffer.concat(parts))));
      stream.on("error", reject);
      stream.setTimeout(callTimeoutMs, () => reject(new Error(`${method.name} was not answered`)));
      stream.end(enveloped(JSON.stringify(request)));
    });
  } finally {
    session.destroy();
  }
}

/** Connect protocol, "Streaming RPCs": flags, length (big-endian), message. */
function enveloped(json: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(json);
  const framed = new Uint8Array(5 + bytes.length);
  new DataView(framed.buffer).setUint32(1, bytes.length);
  framed.set(bytes, 5);
  return framed;
}

/** The first message of a stream, with its envelope; the stream is left then. */
async function firstOf(response: Response): Promise<Uint8Array> {
  let bytes = Buffer.alloc(0);
  for await (const part of response.body ?? []) {
    bytes = Buffer.concat([bytes, part]);
    if (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt32BE(1)) break;
  }
  return bytes;
}

function ofUnary(ok: boolean, text: string): CallOutcome {
  if (ok) return { code: "ok", text };
  try {
    return ofError(JSON.parse(text));
  } catch {
    return { code: "unimplemented", text };
  }
}

function ofStream(bytes: Uint8Array): CallOutcome {
  const texts: string[] = [];
  for (let at = 0; at + 5 <= bytes.length; ) {
    const length = new DataView(bytes.buffer, bytes.byteOffset + at + 1).getUint32(0);
    const text = new TextDecoder().decode(bytes.subarray(at + 5, at + 5 + length));
    if (((bytes[at] ?? 0) & 2) !== 0) {
      const { error } = JSON.parse(text);
      if (error !== undefined) return ofError(error);
    } else texts.push(text);
    at += 5 + length;
  }
  return { code: "ok", text: texts.join("\n") };
}

interface WireError {
  readonly code?: string;
  readonly message?: string;
  readonly details?: readonly { readonly value?: string }[];
}

function ofError({ code = "unknown", message = "", details = [] }: WireError): CallOutcome {
  const said = details.map(({ value = "" }) => Buffer.from(value, "base64").toString("utf8"));
  return { code, text: [message, ...said].join("\n") };
}
