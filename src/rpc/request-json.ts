import { AsyncLocalStorage } from "node:async_hooks";
import { type DescMessage, fromJsonString } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";

/** What the request that is read now has to be. */
const expected = new AsyncLocalStorage<DescMessage>();

/** Reads a request of this kind inside of `work`: what is wrong with its JSON is then told without any of it. */
export function expecting<T>(input: DescMessage | undefined, work: () => T): T {
  return input === undefined ? work() : expected.run(input, work);
}

/**
 * Decodes JSON for Connect, and refuses here what Connect would refuse with a message that quotes it: `got "hunter2"`,
 * `Unexpected identifier "hunter2"`. Who writes JSON by hand has his credentials in it, and his errors in a log.
 */
export const requestText = {
  decode(bytes: Uint8Array): string {
    const text = utf8(bytes);
    const input = expected.getStore();
    if (input === undefined) return text;
    try {
      fromJsonString(input, text, { ignoreUnknownFields: true });
    } catch (thrown) {
      throw notRequest(input, thrown);
    }
    return text;
  },
};

function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw badRequest("the request is not UTF-8", "Send JSON in UTF-8.");
  }
}

function notRequest({ name }: DescMessage, thrown: unknown): ConnectError {
  const message = thrown instanceof Error ? thrown.message : "";
  if (message.includes("duplicate object key"))
    return badRequest(`a key is there twice in one object of ${name}`, "Keep one of them.");
  if (message.includes("JSON Parse error"))
    return badRequest(`the request is not JSON: ${name} is an object`, "Check quotes, commas and brackets.");
  const next =
    "Texts, and times as 2027-01-31T00:00:00Z, go in quotes; lists in brackets; maps in braces: see proto/oci_node/v1.";
  // Names of ours; what comes after them quotes the request.
  const [, field, inner = name] =
    /^cannot decode (?:field [\w.]*?(\w+)|message [\w.]*?(\w+)) from JSON/.exec(message) ?? [];
  if (field !== undefined) return badRequest(`field ${field} of ${name} is not what it has to be`, next);
  return badRequest(`${inner === name ? name : `a ${inner} in ${name}`} is not what it has to be`, next);
}

/** A request that no handler should see. */
export function badRequest(message: string, next: string): ConnectError {
  const value = { room: "rpc", code: "bad_request", next };
  return new ConnectError(message, Code.InvalidArgument, undefined, [{ desc: ErrorDetailSchema, value }]);
}
