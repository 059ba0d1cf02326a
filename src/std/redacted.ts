import { inspect } from "node:util";

/**
 * A value that must not be shown: a password, a token, a key. Every way in which JavaScript turns a value into
 * text (`toString`, template, `JSON.stringify`, `console.log`, `inspect`) gives `[redacted]`.
 *
 * Only the rooms `credential`, `secret` and `registry` may call {@link Redacted.expose}; other rooms pass the handle on.
 */
export class Redacted<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The value itself. Keep it in a local variable, never in a field, a message or an error. */
  expose(): T {
    return this.#value;
  }

  toString(): string {
    return "[redacted]";
  }

  toJSON(): string {
    return "[redacted]";
  }

  [Symbol.toPrimitive](): string {
    return "[redacted]";
  }

  [inspect.custom](): string {
    return "[redacted]";
  }
}
