import { createHash } from "node:crypto";
import { SingleFlight } from "../std/single-flight.ts";
import { SecretError } from "./error.ts";

interface Kept {
  readonly key: Uint8Array;
  readonly atMs: number;
}

/** Within this time the key service is not asked again. */
const freshForMs = 5 * 60_000;
/** A service that is away (not one that refuses) is done without for so long. */
const spareForMs = 30 * 60_000;
const entriesMax = 1000;

/**
 * Workspaces' keys that a key service unwrapped, in this process's memory and for minutes: so the service is no part of
 * each start of a container, and its being away does not stop a cluster that runs. One that refuses counts at the next
 * time that it is asked. Found by all bytes of what was wrapped and of its place: what is put in another place is not found.
 */
export class KeptKeys {
  readonly #kept = new Map<string, Kept>();
  readonly #flights = new SingleFlight<Uint8Array>();
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** A copy, which the caller fills with zeros when done. */
  async get(wrapped: Uint8Array, aad: Uint8Array, ask: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const id = `${digest(wrapped)} ${digest(aad)}`;
    this.#clear();
    const kept = this.#kept.get(id);
    if (kept !== undefined && this.#now() - kept.atMs < freshForMs) return Uint8Array.from(kept.key);
    try {
      const key = await this.#flights.run(id, async () => {
        const asked = await ask();
        this.#drop(id);
        this.#kept.set(id, { key: Uint8Array.from(asked), atMs: this.#now() });
        return asked;
      });
      return Uint8Array.from(key);
    } catch (error) {
      const away = error instanceof SecretError && error.code === "key_unreachable";
      const spare = this.#kept.get(id);
      if (away && spare !== undefined) return Uint8Array.from(spare.key);
      this.#drop(id);
      throw error;
    }
  }

  forget(wrapped: Uint8Array): void {
    const start = `${digest(wrapped)} `;
    for (const id of [...this.#kept.keys()]) if (id.startsWith(start)) this.#drop(id);
  }

  #clear(): void {
    const oldest = this.#now() - spareForMs;
    for (const [id, { atMs }] of this.#kept) {
      if (atMs <= oldest || this.#kept.size > entriesMax) this.#drop(id);
    }
  }

  #drop(id: string): void {
    this.#kept.get(id)?.key.fill(0);
    this.#kept.delete(id);
  }
}

function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
