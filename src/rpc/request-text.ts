import { type DescMessage, isMessage, type Message } from "@bufbuild/protobuf";
import type { Interceptor } from "@connectrpc/connect";
import { badRequest } from "./request-json.ts";

/**
 * Refuses a request with a NUL character in any of its texts, by the field's name: no name, reference, value or argument has
 * one, PostgreSQL keeps none, and programs end their texts there. What is longer or stranger is judged where it is used.
 */
export const refuseNul: Interceptor = (next) => async (request) => {
  const { input } = request.method;
  if (!request.stream) {
    assertNoNul(input, request.message);
    return next(request);
  }
  return next({ ...request, message: checked(input, request.message) });
};

async function* checked<T extends Message>(input: DescMessage, messages: AsyncIterable<T>): AsyncIterable<T> {
  for await (const message of messages) {
    assertNoNul(input, message);
    yield message;
  }
}

function assertNoNul(input: DescMessage, message: Message): void {
  for (const { localName, name } of input.members) {
    const value = (message as unknown as Record<string, unknown>)[localName];
    if (!holdsNul(value)) continue;
    throw badRequest(`field ${name} of ${input.name} has a NUL character in it`, "Leave the character out.");
  }
}

function holdsNul(value: unknown): boolean {
  if (typeof value === "string") return value.includes("\0");
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return false;
  if (Array.isArray(value)) return value.some(holdsNul);
  const entries = Object.entries(value);
  return entries.some(([key, inner]) => (!isMessage(value) && key.includes("\0")) || holdsNul(inner));
}
